package sites

import (
	"testing"
	"time"
)

// A measurement that a busy machine spoilt is forgotten by the next good one.
func TestCalibrationRecoversFromABusyMoment(t *testing.T) {
	const want, extra = 979 * time.Microsecond, 60 * time.Microsecond
	rtt := func(correction time.Duration) time.Duration { return max(0, want-correction) + extra }
	correction := nextCorrection(0, rtt(0)+50*time.Millisecond, want)
	for range calibrationRounds {
		correction = nextCorrection(correction, rtt(correction), want)
	}
	if got := rtt(correction); got != want {
		t.Errorf("RTT %v, want %v; the correction is %v", got, want, correction)
	}
}
