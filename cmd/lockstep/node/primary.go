package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/host"
)

// relayed marks a request that another node passed on: once is enough, the two may
// not agree who leads.
const relayed = "Lockstep-Relayed"

// atPrimary returns this node's seat if it leads the volume that a request is about.
// Otherwise it has answered: by having the primary's node answer.
func (n *node) atPrimary(w http.ResponseWriter, r *http.Request) (*host.Seat, *control.Volume) {
	v, ok := n.volume(w, r)
	if !ok {
		return nil, nil
	}
	var seat *host.Seat
	leads := func() bool {
		seat = n.host.Seat(v.Name)
		return seat != nil && seat.Role() == host.Leading
	}
	switch {
	case leads(), v.Primary == n.conf.Name && n.retry(r.Context(), leadTimeout, leads):
		return seat, v
	case v.Primary == n.conf.Name || r.Header.Get(relayed) != "":
		api.Refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("nobody leads volume %s at this moment: try again", v.Name))
	default:
		n.relay(w, r, v)
	}
	return nil, nil
}

// leadTimeout is how long a question waits at a node that is about to lead: a volume was
// just made, or handed over.
const leadTimeout = time.Second

// relay has the primary's node answer.
func (n *node) relay(w http.ResponseWriter, r *http.Request, v *control.Volume) {
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: n.group.State().Nodes[v.Primary].Addr})
			p.Out.Header.Set(relayed, n.conf.Name)
		},
		Transport: n.peers.Transport, FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			api.Refuse(w, http.StatusBadGateway, fmt.Sprintf("the node of the primary of %s, %s, cannot be reached: %v (if it is gone and nobody takes over, see lockstep failover)", v.Name, v.Primary, err))
		},
	}
	proxy.ServeHTTP(w, r)
}

func (n *node) getStanding(w http.ResponseWriter, r *http.Request) {
	seat, v := n.atPrimary(w, r)
	if seat == nil {
		return
	}
	standing, ok := seat.Status()
	if !ok {
		api.Refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("nobody leads volume %s at this moment: try again", v.Name))
		return
	}
	api.Answer(w, http.StatusOK, standing)
}

func (n *node) postHandover(w http.ResponseWriter, r *http.Request) {
	seat, v := n.atPrimary(w, r)
	if seat == nil {
		return
	}
	ask, ok := read[api.Handover](w, r)
	if !ok {
		return
	}
	n.log.Info("asked for", "what", "handover", "volume", v.Name, "to", ask.To)
	// Half a handover is worse than one that nobody waits for.
	pause, err := seat.HandOver(context.WithoutCancel(r.Context()), ask.To)
	if err != nil {
		api.Refuse(w, http.StatusConflict, err.Error())
		return
	}
	n.moved(w, v, ask.To, pause)
}

func (n *node) moved(w http.ResponseWriter, before *control.Volume, to string, pause time.Duration) {
	m := api.Moved{From: before.Primary, To: to, PauseMS: float64(pause) / float64(time.Millisecond)}
	if v := n.group.State().Volumes[before.Name]; v != nil {
		m.Epoch = v.Epoch
	}
	api.Answer(w, http.StatusOK, m)
}

func (n *node) postVerify(w http.ResponseWriter, r *http.Request) {
	seat, v := n.atPrimary(w, r)
	if seat == nil {
		return
	}
	repair, err := strconv.ParseBool(r.URL.Query().Get("repair"))
	if err != nil && r.URL.Query().Has("repair") {
		api.Refuse(w, http.StatusBadRequest, "repair is true or false")
		return
	}
	if _, under := n.verifying.LoadOrStore(v.Name, true); under { // two would cost twice and find the same
		api.Refuse(w, http.StatusConflict, "a verification is under way: wait for it, or stop it")
		return
	}
	defer n.verifying.Delete(v.Name)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := api.NewLines(w, cancel)
	n.log.Info("verify began", "volume", v.Name, "repair", repair)
	name := n.namer(v)
	result, err := seat.Verify(ctx, repair, func(p mirror.VerifyProgress) {
		p.Replica = name(p.Replica)
		out.Progress(p)
	})
	for i := range result.Differs {
		result.Differs[i].Replica = name(result.Differs[i].Replica)
	}
	line := api.VerifyLine{Result: &result}
	switch {
	case err == nil:
	case ctx.Err() != nil: // whoever reads this has not gone away
		line.Error = "verify: lockstep node is being stopped"
	default:
		line.Error = err.Error()
	}
	n.log.Info("verify ended", "volume", v.Name, "checked", result.Checked, "differing_ranges", len(result.Differs), "repair", repair, "err", err)
	out.Send(line)
}

// namer makes a node's name of its address, for a person.
func (n *node) namer(v *control.Volume) func(addr string) string {
	nodes := n.group.State().Nodes
	return func(addr string) string {
		for _, r := range v.Replicas {
			if nodes[r.Node].Addr == addr {
				return r.Node
			}
		}
		return addr
	}
}

// failoverTimeout bounds how long a forced primary may take to lead.
const failoverTimeout = 15 * time.Second

func (n *node) postFailover(w http.ResponseWriter, r *http.Request) {
	v, ok := n.volume(w, r)
	if !ok {
		return
	}
	ask, ok := read[api.Failover](w, r)
	if !ok {
		return
	}
	if why := n.mayFailOver(r.Context(), v, ask); why != "" {
		api.Refuse(w, http.StatusConflict, why)
		return
	}
	began := time.Now()
	c := control.Force(v.Name, v.Epoch+1, ask.To)
	c.Why = "asked for at node " + n.conf.Name
	n.log.Warn("failover", "volume", v.Name, "to", ask.To, "in_sync", v.Replicas[v.Slot(ask.To)].InSync)
	if _, err := n.command(r.Context(), c); err != nil {
		fail(w, err)
		return
	}
	if err := n.leads(r.Context(), v.Name, ask.To); err != nil {
		api.Refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	n.moved(w, v, ask.To, time.Since(began))
}

// mayFailOver says why a failover is refused; "" if it is not.
func (n *node) mayFailOver(ctx context.Context, v *control.Volume, ask api.Failover) string {
	slot := v.Slot(ask.To)
	switch {
	case slot < 0:
		return fmt.Sprintf("node %q has no replica of volume %s", ask.To, v.Name)
	case !v.Replicas[slot].InSync && !ask.AcceptDataLoss:
		return n.whatIsLost(ctx, v, ask.To)
	case v.Primary != ask.To:
		return ""
	}
	if standing, err := n.standing(ctx, v); err == nil && standing.Serving {
		return fmt.Sprintf("node %q is the primary of %s, and serves it", ask.To, v.Name)
	}
	return ""
}

// leads waits until a node that was named primary leads.
func (n *node) leads(ctx context.Context, volume, node string) error {
	ctx, cancel := context.WithTimeout(ctx, failoverTimeout)
	defer cancel()
	for {
		changed := n.group.Changed()
		v := n.group.State().Volumes[volume]
		switch {
		case v == nil:
			return errors.New("the volume was deleted meanwhile")
		case v.Primary == node && v.By == node:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s was named primary of %s and does not lead yet: is the node up? (see lockstep status)", node, volume)
		}
	}
}
