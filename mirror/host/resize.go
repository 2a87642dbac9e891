package host

import (
	"errors"

	"lockstep/mirror/control"
)

// A volume grows on record first. Its primary takes that in by handing over to itself,
// and its copy grows while it does; so do the others, as soon as it has let go of them:
// a primary and its replicas always have one size, and all that was acknowledged is
// equal on them when they change it. What a copy gains are zeroes, and needs no resync.

// outgrown says that the volume is larger than this node's copy, and that no primary
// uses that as it is.
func (s *Seat) outgrown(v *control.Volume) bool {
	return s.store.Size() < v.Size && s.replica.Following() == 0
}

// grow makes the copy of a node that follows as large as the volume. Who connects
// meanwhile waits.
func (s *Seat) grow(v *control.Volume) error {
	r := s.replica
	s.become(Stopping, nil, nil)
	state, origins := r.Retire()
	s.agreed, s.origins = state.Intents == nil && len(state.Written) == 0, origins
	if err := s.resize(v); err != nil {
		return err
	}
	s.follow()
	return nil
}

// resize makes this node's copy, which nobody uses, as large as the volume is. After an
// error this node has no copy open, and tries that again with its next turn.
func (s *Seat) resize(v *control.Volume) error {
	if s.store.Size() >= v.Size {
		return nil
	}
	s.log.Info("the replica grows", "from", s.store.Size(), "to", v.Size)
	s.mu.Lock()
	st := s.store
	s.store = nil
	s.mu.Unlock()
	err := errors.Join(st.Sync(), st.Close()) // it goes on at once: that it was stopped need not be written down
	if err == nil {
		err = s.openStore(v)
	}
	if err != nil {
		s.become(Bystander, nil, nil)
	}
	return err
}
