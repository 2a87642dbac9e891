package host

import (
	"errors"
	"fmt"
	"os"
	"time"

	"lockstep/mirror/control"
	"lockstep/mirror/store"
)

// A replica is taken from this node when its slot is another's or free, and also when
// the slot was given to the node again: then the record names no store for it, although
// it named this one once.

// listedRecord is what a store has that was on record once. It is empty.
const listedRecord = "listed"

// replaced says that an operator wants an empty copy in place of the one that is open.
// That it was on record once is kept with the copy: a new one is not on record either
// before it has caught up.
func (s *Seat) replaced(r control.Replica) bool {
	if s.listed {
		return empty(r)
	}
	if r.Store == control.ID(s.store.Meta().Replica) {
		if err := s.store.WriteRecord(listedRecord, nil); err != nil {
			s.complain(fmt.Errorf("note that the replica is on record: %w", err))
			return false
		}
		s.listed = true
	}
	return false
}

// empty says that a slot was given to its node, and nothing has been written there yet.
func empty(r control.Replica) bool { return !r.InSync && r.Store == (control.ID{}) }

// useless says of what opening a copy came to, that no other attempt will go better.
func useless(err error) bool {
	return errors.Is(err, store.ErrBroken) || errors.Is(err, store.ErrCorrupt)
}

// abandon gives up a replica that was taken from this node. Its files stay: nobody
// but a person can know that they are not needed.
func (s *Seat) abandon(v *control.Volume) error {
	if v.Epoch < s.store.Meta().Epoch {
		return nil // while a node starts its state goes through the past
	}
	s.replica.Retire()
	err := s.store.CloseClean()
	s.mu.Lock()
	s.store = nil
	s.mu.Unlock()
	s.become(Bystander, nil, nil)
	return errors.Join(err, s.moveAway(v))
}

// moveAway makes room for another copy.
func (s *Seat) moveAway(v *control.Volume) error {
	dir := s.h.dirOf(v)
	old := fmt.Sprintf("%s.removed-%d", dir, time.Now().UnixNano())
	s.log.Warn("this node's replica was removed; its files can be deleted", "files", old)
	return os.Rename(dir, old)
}
