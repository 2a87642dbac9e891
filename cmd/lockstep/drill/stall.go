package drill

import (
	"sync"
	"time"
)

// stall is the longest time between two acknowledgements.
type stall struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

// begin forgets what was, and counts from now.
func (s *stall) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.longest = time.Now(), 0
}

// acknowledged ends one wait and begins the next.
func (s *stall) acknowledged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.last, s.longest = now, max(s.longest, now.Sub(s.last))
}

// end is the longest since begin, with the wait that still goes on.
func (s *stall) end() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.longest, time.Since(s.last))
}
