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
	fronts      map[*forward.Front]*client
}

// client is whose a front is.
type client struct {
	session control.Session // zero: it said none
	users   int             // how many attached to the session

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
func (r *routes) forLocked(c *client) forward.Route {
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
			over[f] = forward.ErrSuperseded
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
			over[f] = forward.ErrSuperseded
		}
	}
	r.mu.Unlock()
	r.fail(over)
}

// errStopping: no client can begin here now.
var errStopping = errors.New("this node is being stopped, or only starting")

// add begins a front, or joins the one of its session.
func (r *routes) add(conf forward.FrontConfig, who Client) (*forward.Front, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.known {
		return nil, errStopping
	}
	conf.Incarnation = r.incarnation
	if who.Session != (control.Session{}) {
		if r.incarnation != who.Incarnation {
			return nil, ErrBehind
		}
		for f, c := range r.fronts {
			if c.name == who.Name && c.session == who.Session && c.generation == conf.Generation && c.size == conf.Size {
				c.users++
				return f, nil
			}
		}
	}
	f := forward.NewFront(conf)
	if r.fronts == nil {
		r.fronts = map[*forward.Front]*client{}
	}
	c := &client{who.Session, 1, r.incarnation, conf.Client, conf.Generation, conf.Size}
	r.fronts[f] = c
	f.Route(r.forLocked(c))
	return f, nil
}

// leave ends one user's part in a front, and says whether nobody is left.
func (r *routes) leave(f *forward.Front) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.fronts[f]
	if c == nil {
		return true
	}
	c.users--
	if c.users == 0 {
		delete(r.fronts, f)
	}
	return c.users == 0
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

// Client is who attaches to a volume.
type Client struct {
	Name string // empty: it has none

	// Session, if it is not zero, says which of its agent's stays this is: what attaches
	// with the same one shares a session, so that their ops keep their order. Then the
	// client means the volume in this incarnation and of this size, which it was told, and
	// must not be let in with another.
	Session     control.Session
	Incarnation uint64
	Size        int64 // bytes
}

// ErrSuperseded refuses a client whose name another has taken over.
var ErrSuperseded = errors.New("another client attached under this name since")

// ErrBehind refuses a client that was told what the volume was, not what it is.
var ErrBehind = errors.New("this node has yet to hear what the volume has become: try again")

// Attach begins a client's session, or joins it. One with a name begins a new generation:
// what is still under way of the same client elsewhere is refused from now on. complete
// and gone are forward.FrontConfig's, and the same for all who share a session.
// [Seat.Detach] ends it.
func (s *Seat) Attach(ctx context.Context, who Client, complete func([]*mirror.Op), gone func(tag any) bool) (*forward.Front, error) {
	conf := forward.FrontConfig{Volume: s.name, Client: who.Name, Complete: complete, Gone: gone, Log: s.log}
	if who.Name != "" {
		generation, err := s.generate(ctx, &who)
		if err != nil {
			return nil, err
		}
		conf.Generation = generation
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
	if who.Name != "" {
		s.supersede(who.Name, conf.Generation)
	}
	return s.routes.add(conf, who)
}

// generate begins a generation of a named client, unless its session has one.
func (s *Seat) generate(ctx context.Context, who *Client) (generation uint64, err error) {
	command := control.Attach(s.name, who.Name)
	if who.Session != (control.Session{}) {
		command = control.Resume(s.name, who.Name, who.Session)
	}
	r, err := s.h.conf.Group.Do(ctx, command)
	switch {
	case err != nil:
		return 0, fmt.Errorf("attach client %q: %w", who.Name, err)
	case r.Superseded:
		return 0, fmt.Errorf("attach client %q: %w", who.Name, ErrSuperseded)
	case r.Refused != "":
		return 0, fmt.Errorf("attach client %q: %s", who.Name, r.Refused)
	case r.Volume == nil || r.Volume.ID != s.id:
		return 0, errGone
	case who.Session != (control.Session{}) && (r.Volume.Incarnation != who.Incarnation || r.Volume.Size != who.Size):
		return 0, ErrBehind
	}
	return r.Generation, nil
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

// Detach ends one user's part in a session. With the last one's, what it had in flight
// comes back with an error, if it does not end otherwise.
func (s *Seat) Detach(f *forward.Front) {
	if s.routes.leave(f) {
		f.Close()
	}
}

// ID is the volume's: one that is made again under the same name has another.
func (s *Seat) ID() control.ID { return s.id }
