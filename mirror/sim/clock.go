package sim

import "time"

// clock is a node's own: it runs at its own rate from its own moment, and goes
// on while the node is paused.
type clock struct {
	offset time.Duration
	drift  float64 // 1e-3: a millisecond a second too fast
}

func (c clock) at(now time.Duration) time.Duration {
	return c.offset + now + time.Duration(float64(now)*c.drift)
}
