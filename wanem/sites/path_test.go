package sites

import (
	"testing"
	"time"
)

// TestCalibrationIgnoresABusyMoment plays a link on a machine that is busy in some
// rounds: the correction is what it is worth in the others. A correction that is
// larger than the delay can't be taken back from it, and must not be believed.
func TestCalibrationIgnoresABusyMoment(t *testing.T) {
	const extra, busy = 60 * time.Microsecond, 50 * time.Millisecond
	p := &path{link: km(100)}
	rtt := func(more time.Duration) time.Duration { return p.delaySet() + extra + more }
	var seen overhead
	for i, more := range []time.Duration{busy, 0, 0, busy, 0, busy, 0, 0, 0, busy, busy, 0} {
		p.correction = seen.add(rtt(more) - p.delaySet())
		if want := p.link.RTT(); i > 1 && rtt(0) != want {
			t.Errorf("round %d: %v, want %v; the correction is %v", i, rtt(0), want, p.correction)
		}
	}
	// A machine that stays busy is believed after half of what is remembered.
	for range memory/2 + 1 {
		p.correction = seen.add(rtt(time.Millisecond) - p.delaySet())
	}
	if p.correction != extra+time.Millisecond {
		t.Errorf("the correction is %v, want %v", p.correction, extra+time.Millisecond)
	}
}
