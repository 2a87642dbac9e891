package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

type clusterCmd struct {
	List    clusterListCmd    `cmd:"" help:"List the nodes, and who leads the control plane."`
	Add     clusterAddCmd     `cmd:"" help:"Say how a node joins, and wait until it has."`
	Remove  clusterRemoveCmd  `cmd:"" help:"Forget a node; it may be dead."`
	Promote clusterPromoteCmd `cmd:"" help:"Give a node a vote."`
	Demote  clusterDemoteCmd  `cmd:"" help:"Take a node's vote."`
}

type clusterListCmd struct{ asking }

// Help is shown by lockstep cluster list --help.
func (clusterListCmd) Help() string {
	return `A majority of the voters decides who is primary. RTT and HEARD are from the leader to
each; only the leader knows them, so ask it (--node) to see them.`
}

// Run lists the nodes.
func (c *clusterListCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var m api.Members
	if err := client.Get(ctx, http.MethodGet, "/nodes", nil, &m); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(m)
	}
	return printMembers(m)
}

func printMembers(m api.Members) error {
	if m.Group.Leader == "" {
		fmt.Printf("term %d, NO LEADER: nothing can be changed, and nobody takes over (is a majority of the voters there?)\n\n", m.Group.Term)
	} else {
		fmt.Printf("term %d, leader %s\n\n", m.Group.Term, m.Group.Leader)
	}
	servers := map[string]control.Server{}
	for _, s := range m.Group.Servers {
		servers[s.Name] = s
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tROLE\tRTT\tHEARD")
	for _, name := range slices.Sorted(maps.Keys(m.Nodes)) {
		s, rtt, heard := servers[name], "-", "-"
		if s.RTT > 0 {
			rtt = delayText(microseconds(s.RTT))
		}
		if s.Contact > 0 {
			heard = s.Contact.Round(time.Millisecond).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, m.Nodes[name].Addr, roleText(m.Nodes[name]), rtt, heard)
	}
	return w.Flush()
}

func roleText(n control.Node) string {
	switch {
	case n.Witness && n.Voter:
		return "witness"
	case n.Witness:
		return "witness, no vote"
	case n.Voter:
		return "voter"
	}
	return "no vote"
}

type clusterAddCmd struct {
	asking
	Name string        `arg:"" help:"The name of the node that joins."`
	Wait time.Duration `default:"1m" help:"How long to wait for it."`
}

// Help is shown by lockstep cluster add --help.
func (clusterAddCmd) Help() string {
	return `A node joins by itself when it is started with the names of those that the cluster
began with. This prints the command, and waits until the node is there. It has no vote
at first (lockstep cluster promote), and no copies (lockstep volume replica add).`
}

// Run waits for a node.
func (c *clusterAddCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Wait, fmt.Errorf("node %s did not join within %v: its log says why", c.Name, c.Wait))
	defer cancel()
	for told := false; ; told = true {
		var m api.Members
		if err := client.Get(ctx, http.MethodGet, "/nodes", nil, &m); err != nil {
			return cmpCause(ctx, err)
		}
		if n, ok := m.Nodes[c.Name]; ok {
			if c.JSON {
				return printJSON(n)
			}
			_, err := fmt.Printf("node %s is a member, at %s: %s\n", c.Name, n.Addr, roleText(n))
			return err
		}
		if !told {
			fmt.Fprintf(os.Stderr, "start it on its machine:\n  lockstep node --name %s --data DIR --listen HOST:PORT --nbd ADDR --cluster %s\n", c.Name, clusterFlag(m.Nodes))
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// cmpCause prefers why a context ended to the error that this made.
func cmpCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// clusterFlag is what a node that joins says of the voters.
func clusterFlag(nodes map[string]control.Node) (text string) {
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if !nodes[name].Voter {
			continue
		}
		if text != "" {
			text += ","
		}
		text += name + "=" + nodes[name].Addr
	}
	return text
}

type clusterRemoveCmd struct {
	asking
	Name string `arg:"" help:"The node's name."`
}

// Help is shown by lockstep cluster remove --help.
func (clusterRemoveCmd) Help() string {
	return `It is refused while one of its copies is in sync. Others stay on record, for a node that
does not exist: give them to another one (lockstep volume replica replace), before or
after. A name that was removed can join again, with an empty data directory.`
}

// Run removes a node.
func (c *clusterRemoveCmd) Run(ctx context.Context) error {
	return c.changeNodes(ctx, http.MethodDelete, nodePath(c.Name), "node "+c.Name+" is removed")
}

type clusterPromoteCmd struct {
	asking
	Name string `arg:"" help:"The node's name."`
}

// Help is shown by lockstep cluster promote --help.
func (clusterPromoteCmd) Help() string {
	return `Keep the number of voters odd: with four, two that are lost are still too many.`
}

// Run gives a node a vote.
func (c *clusterPromoteCmd) Run(ctx context.Context) error {
	return c.changeNodes(ctx, http.MethodPost, nodePath(c.Name)+"/promote", "node "+c.Name+" votes as soon as it has caught up")
}

type clusterDemoteCmd struct {
	asking
	Name string `arg:"" help:"The node's name."`
}

// Run takes a node's vote.
func (c *clusterDemoteCmd) Run(ctx context.Context) error {
	return c.changeNodes(ctx, http.MethodPost, nodePath(c.Name)+"/demote", "node "+c.Name+" has no vote any more")
}

func nodePath(name string) string { return "/nodes/" + url.PathEscape(name) }

// changeNodes asks for something about a node, and prints what is so now.
func (a *asking) changeNodes(ctx context.Context, method, path, done string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	nodes := map[string]control.Node{}
	if err := client.Get(ctx, method, path, nil, &nodes); err != nil {
		return refusedBy(err)
	}
	if a.JSON {
		return printJSON(nodes)
	}
	_, err = fmt.Println(done)
	return err
}
