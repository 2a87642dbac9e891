package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
)

// ErrForgot ends the session of a client that held the volume open while acknowledged
// writes were given up: it must see an error, not a device that silently forgot.
var ErrForgot = fmt.Errorf("the volume lost acknowledged writes since it was opened; open it again: %w", syscall.EIO)

// routes are the fronts of a seat, and where they send.
type routes struct {
	mu          sync.Mutex
	route       forward.Route
	incarnation uint64
	known       bool // begin was called
	closed      bool
	fronts      map[*forward.Front]client
}

// client is whose a front is.
type client struct {
	incarnation uint64 // of the volume when it began
	name        string // empty: it has none
	generation  uint64
	size        int64 // of the volume as it knows it; bytes
}

// here is the volume as this node leads it.
type here struct {
	*mirror.Volume
	size int64 // bytes
}

// set sends every front to where the volume's primary is.
func (r *routes) set(route forward.Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.route == route {
		return
	}
	r.route = route
	for f, c := range r.fronts {
		f.Route(r.forLocked(c))
	}
}

// forLocked is where a client's front sends. One that began when the volume had grown on
// record waits until it is led with that size: before, what lies beyond cannot be
// done. (Another node's forward.Server sees to that itself.)
func (r *routes) forLocked(c client) forward.Route {
	if v, ok := r.route.Volume.(here); ok && c.size > v.size {
		return forward.Route{}
	}
	return r.route
}

// drain waits until what fronts were submitting to this node's volume has reached it.
func (r *routes) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.fronts {
		f.Drain()
	}
}

// begin takes in what the record says of clients: it ends the fronts of an earlier
// incarnation, because acknowledged writes were given up since, and those of named
// clients that are elsewhere now.
func (r *routes) begin(v *control.Volume) {
	r.mu.Lock()
	r.incarnation, r.known = v.Incarnation, true
	over := map[*forward.Front]error{}
	for f, c := range r.fronts {
		switch {
		case c.incarnation != v.Incarnation:
			over[f] = ErrForgot
		case c.name != "" && c.generation < v.Clients[c.name]:
			over[f] = errSuperseded
		}
	}
	r.mu.Unlock()
	r.fail(over)
}

// fail ends fronts, each for its reason.
func (r *routes) fail(over map[*forward.Front]error) {
	for f, why := range over {
		r.remove(f)
		f.Fail(why)
	}
}

// failAll ends every front.
func (r *routes) failAll(why error) {
	r.mu.Lock()
	over := map[*forward.Front]error{}
	for f := range r.fronts {
		over[f] = why
	}
	r.mu.Unlock()
	r.fail(over)
}

// close ends every front.
func (r *routes) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.failAll(forward.ErrClosed)
}

// supersede ends the fronts of a named client that are older than a generation: it is
// at another node now.
func (r *routes) supersede(name string, generation uint64) {
	r.mu.Lock()
	over := map[*forward.Front]error{}
	for f, c := range r.fronts {
		if c.name == name && c.generation < generation {
			over[f] = errSuperseded
		}
	}
	r.mu.Unlock()
	r.fail(over)
}

var errSuperseded = fmt.Errorf("the client of that name attached again: %w", syscall.ESHUTDOWN)

// add begins a front.
func (r *routes) add(conf forward.FrontConfig) (*forward.Front, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.known {
		return nil, errors.New("this node is being stopped, or only starting")
	}
	conf.Incarnation = r.incarnation
	f := forward.NewFront(conf)
	if r.fronts == nil {
		r.fronts = map[*forward.Front]client{}
	}
	c := client{r.incarnation, conf.Client, conf.Generation, conf.Size}
	r.fronts[f] = c
	f.Route(r.forLocked(c))
	return f, nil
}

func (r *routes) remove(f *forward.Front) {
	r.mu.Lock()
	delete(r.fronts, f)
	r.mu.Unlock()
}

// route is where the volume's primary is, as far as this node knows.
func (s *Seat) route(v *control.Volume) forward.Route {
	l := s.leading()
	switch {
	case l != nil && s.admits(l):
		return forward.Route{Volume: here{l.volume, l.size}}
	case l != nil || v.Primary == s.h.conf.Name:
		return forward.Route{}
	}
	return forward.Route{Addr: s.h.conf.Group.State().Nodes[v.Primary].Addr}
}

func (s *Seat) admits(l *lead) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.server != nil
}

// Attach begins a client's session. One with a name begins a new generation: what is
// still under way of the same client elsewhere is refused from now on. complete and
// gone are forward.FrontConfig's. [Seat.Detach] ends it.
func (s *Seat) Attach(ctx context.Context, client string, complete func([]*mirror.Op), gone func(tag any) bool) (*forward.Front, error) {
	conf := forward.FrontConfig{Volume: s.name, Client: client, Complete: complete, Gone: gone, Log: s.log}
	if client != "" {
		r, err := s.h.conf.Group.Do(ctx, control.Attach(s.name, client))
		if err != nil || r.Refused != "" {
			return nil, errors.Join(fmt.Errorf("attach client %q: %s", client, r.Refused), err)
		}
		conf.Generation = r.Generation
	}
	s.refresh() // the client was told the size that this node's state says
	v := s.Record()
	if v == nil {
		return nil, errGone
	}
	conf.Size = v.Size
	if v.Policy.OnIsolation == "error" {
		conf.Park = s.h.conf.IsolationTimeout
	}
	if client != "" {
		s.supersede(client, conf.Generation)
	}
	return s.routes.add(conf)
}

// supersede ends what is older of a named client than a generation, as far as it goes
// through this node.
func (s *Seat) supersede(client string, generation uint64) {
	s.routes.supersede(client, generation)
	s.mu.Lock()
	var server *forward.Server
	if s.lead != nil {
		server = s.lead.server
	}
	s.mu.Unlock()
	if server != nil {
		server.Supersede(client, generation)
	}
}

// Detach ends a session; what it had in flight comes back with an error, if it does not
// end otherwise.
func (s *Seat) Detach(f *forward.Front) {
	s.routes.remove(f)
	f.Close()
}
