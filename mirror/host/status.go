package host

import (
	"context"
	"errors"
	"fmt"

	"lockstep/mirror"
)

// errNotLeading is for what only the primary's node can do.
var errNotLeading = errors.New("this node does not lead the volume (see lockstep status)")

// Status is how the volume stands; false unless this node leads it.
func (s *Seat) Status() (mirror.Status, bool) {
	l := s.leading()
	if l == nil {
		return mirror.Status{}, false
	}
	return l.volume.Status(), true
}

// Verify compares every copy in sync with this one; see [mirror.Volume.Verify]. It is
// for the node that leads.
func (s *Seat) Verify(ctx context.Context, repair bool, progress func(mirror.VerifyProgress)) (mirror.VerifyResult, error) {
	l := s.leading()
	if l == nil {
		return mirror.VerifyResult{}, fmt.Errorf("verify %s: %w", s.name, errNotLeading)
	}
	return l.volume.Verify(ctx, repair, progress)
}

// Data says which part of this node's copy from off on holds data; false unless this
// node leads, whose copy is the truth.
func (s *Seat) Data(off int64) (start, end int64, ok bool) {
	s.mu.Lock()
	st, l := s.store, s.lead
	s.mu.Unlock()
	if l == nil || !s.admits(l) {
		return 0, 0, false
	}
	start, end, err := st.Data(off)
	return start, end, err == nil
}

// Align is the smallest request that this node's copy can do, in bytes; 0 if any, or if
// it has none.
func (s *Seat) Align() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return 0
	}
	return s.store.Align()
}
