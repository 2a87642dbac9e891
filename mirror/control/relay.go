package control

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"
)

// question is what only the leader can answer: a command, or a lease's renewal.
type question struct {
	path string // of a node's handler, behind /control/
	body any
	here func(ctx context.Context) (Result, error) // answers it, if this node leads
	sent int                                       // how often, to whomever
}

func (c *Control) commandQuestion(cmd Command) *question {
	return &question{path: "do", body: cmd, here: func(ctx context.Context) (Result, error) {
		return c.applyHere(ctx, cmd)
	}}
}

func (c *Control) renewalQuestion(r renewal) *question {
	return &question{path: "renew", body: r, here: func(ctx context.Context) (Result, error) {
		return Result{}, c.renewHere(ctx, r.Volume, r.Epoch)
	}}
}

// said is what a node answered.
type said struct {
	Result
	err error
}

// ask puts q to the leader, and, when that fails or nothing was heard for a heartbeat,
// to one more of the others, who passes it on. For if only the way between this node
// and the leader is cut, or one direction of it, the rest of the group is content and
// elects nobody else. If leader is "", all others are asked at once. The first answer
// that says something of q is the one; a command that arrives twice applies once.
func (c *Control) ask(ctx context.Context, leader string, q *question) (Result, error) {
	if leader == c.conf.Name {
		q.sent++
		return q.here(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	others := c.others(leader)
	answers := make(chan said, 1+len(others))
	waiting := 0
	send := func(node, path string) {
		q.sent++
		waiting++
		go func() {
			result, err := c.post(ctx, node, path, q.body)
			answers <- said{result, err}
		}()
	}
	relay := func() {
		send(others[0], "/control/relay/"+q.path)
		others = others[1:]
	}
	if leader != "" {
		send(leader, "/control/"+q.path)
	}
	for leader == "" && len(others) > 0 {
		relay()
	}
	return c.firstAnswer(ctx, answers, &waiting, func() {
		if len(others) > 0 {
			relay()
		}
	})
}

// firstAnswer takes answers until one settles the question or none is to come; after
// each that does not, and each heartbeat, more asks another node.
func (c *Control) firstAnswer(ctx context.Context, answers <-chan said, waiting *int, more func()) (Result, error) {
	silence := time.NewTicker(c.conf.Heartbeat)
	defer silence.Stop()
	var last error = &notLeader{}
	for *waiting > 0 {
		select {
		case a := <-answers:
			*waiting--
			if settles(a.err) {
				return a.Result, a.err
			}
			last = a.err
		case <-silence.C:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
		more()
	}
	return Result{}, last
}

// settles says that who answered knew what becomes of the question, or who knows.
func settles(err error) bool {
	return err == nil || errors.As(err, new(*Refused)) || errors.As(err, new(*held)) || errors.As(err, new(*notLeader))
}

// others are the nodes besides this one and the leader, voters first: the leader is
// in touch with most of them.
func (c *Control) others(leader string) []string {
	s := c.State()
	names := s.voters()
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		if !s.Nodes[name].Voter {
			names = append(names, name)
		}
	}
	if len(names) == 0 { // this node is not a member yet
		for _, v := range c.conf.Voters {
			names = append(names, v.Name)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == leader || name == c.conf.Name })
}

// passOn answers for a node that does not hear from the leader. It asks the leader
// itself, whose handler passes nothing on: so a question never goes round in circles.
func (c *Control) passOn(ctx context.Context, q *question) (Result, error) {
	leader, ok := c.Leader()
	switch {
	case !ok:
		return Result{}, &notLeader{}
	case leader == c.conf.Name:
		return q.here(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, patience*c.conf.Heartbeat)
	defer cancel()
	return c.post(ctx, leader, "/control/"+q.path, q.body)
}

// post puts a question to another node's handler.
func (c *Control) post(ctx context.Context, node, path string, body any) (Result, error) {
	var rep reply
	if err := c.call(ctx, node, http.MethodPost, path, body, &rep); err != nil {
		return Result{}, err
	}
	return rep.outcome(node)
}
