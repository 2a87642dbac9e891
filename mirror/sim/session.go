package sim

import (
	"errors"
	"fmt"

	"lockstep/mirror"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// session is a connection that a primary opened, from the replica's side.
type session struct {
	n       *node
	end     *end
	in      frames
	a       *mirror.Applier
	greeted bool
	over    bool
	waiting bool // for the disk, before it goes on
	syncing bool
}

// unlocked stands for a lock where there is one thread.
type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}

func (n *node) accept(e *end) {
	s := &session{n: n, end: e}
	e.receive, e.ended = s.received, s.finish
	n.sessions = append(n.sessions, s)
}

func (s *session) received(b []byte) {
	s.in.add(b)
	if s.n.slowWrite <= s.n.c.now {
		s.work()
	} else if !s.waiting {
		s.waiting = true
		s.n.after(s.n.diskTime(), func() {
			s.waiting = false
			s.work()
		})
	}
}

// work does all frames that are there and acknowledges them together.
func (s *session) work() {
	for !s.over && !s.waiting {
		h, payload, whole, err := s.in.next()
		if err == nil && whole {
			err = s.handle(&h, payload)
		}
		if err != nil {
			s.fail(err)
			return
		}
		if !whole {
			break
		}
	}
	if s.over || !s.greeted || s.waiting {
		return
	}
	if err := s.a.Acknowledge(); err != nil {
		s.fail(err)
		return
	}
	s.sync()
}

func (s *session) handle(h *wire.Header, payload []byte) error {
	if s.n.c.out != nil {
		s.n.trace("from connection %d: %v %x seq %d epoch %d watermark %d at %d+%d", s.end.name, h.Kind, uint8(h.Flags), h.Seq, h.Epoch, h.Watermark, h.Offset, h.Length)
	}
	if s.greeted {
		return s.a.Handle(h, payload)
	}
	return s.greet(h, payload)
}

var errNotHello = errors.New("a connection begins with a hello")

func (s *session) greet(h *wire.Header, payload []byte) error {
	n := s.n
	switch {
	case h.Kind != wire.KindHello:
		return errNotHello
	case n.lead != nil:
		return fmt.Errorf("this node is primary itself, of epoch %d", n.lead.m.Configuration().Epoch)
	}
	// Not before: a connection may be older than the follower, if the node was primary meanwhile.
	s.a = mirror.NewApplier(n.follower, unlocked{}, n.store, n.now, func(h wire.Header, payload []byte) error {
		s.end.send(encode(h, payload))
		return nil
	})
	if err := s.a.Greet(h, payload); err != nil {
		return err
	}
	if n.current != nil {
		n.current.close()
	}
	n.current, s.greeted = s, true
	return nil
}

// sync makes durable, after a while, what the primary asked for.
func (s *session) sync() {
	if s.syncing || s.over || s.a.Wanted() == 0 {
		return
	}
	s.syncing = true
	s.n.after(s.n.syncTime(), func() {
		s.syncing = false
		if s.over {
			return
		}
		if err := s.a.Sync(); err != nil {
			s.fail(err)
			return
		}
		s.sync()
	})
}

// fail tells the primary why the connection is over.
func (s *session) fail(err error) {
	kind := wire.KindFailed
	if !s.greeted {
		kind = wire.KindRefuse
	}
	s.n.trace("ends connection %d: %v", s.end.name, err)
	s.end.send(encode(wire.Header{Kind: kind}, []byte(err.Error())))
	s.close()
	if errors.Is(err, store.ErrBroken) {
		s.n.fail(err)
	}
}

func (s *session) close() {
	s.end.close()
	s.finish()
}

// finish is the end of the connection: nothing more is done for it.
func (s *session) finish() {
	n := s.n
	s.over = true
	s.end.closed = true
	if n.current == s {
		n.current = nil
	}
	for i, o := range n.sessions {
		if o == s {
			n.sessions = append(n.sessions[:i:i], n.sessions[i+1:]...)
			return
		}
	}
}
