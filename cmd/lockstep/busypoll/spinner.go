package busypoll

import "time"

// spinner decides how long a wait may spin before it sleeps. Spinning pays while
// one side waits for the other and data comes within the limit. Each wait in vain
// makes the next ones sleep at once: one, then three, seven, and so on up to
// maxSkip-1. So does data that was there before anybody waited: then many requests
// are in flight, and the CPU is worth more to those who work on them.
type spinner struct {
	limit  time.Duration
	misses int // in a row, at most maxMisses
	skip   int // waits that sleep at once
}

const (
	maxMisses = 6
	maxSkip   = 1 << maxMisses
	loadSkip  = 8
)

func (s *spinner) budget() time.Duration {
	if s.skip > 0 {
		s.skip--
		return 0
	}
	return s.limit
}

func (s *spinner) hit() { s.misses = 0 }

func (s *spinner) load() { s.skip = max(s.skip, loadSkip) }

func (s *spinner) miss() {
	s.misses = min(s.misses+1, maxMisses)
	s.skip = 1<<s.misses - 1
}
