package sweep

import (
	"fmt"
	"time"

	"lockstep/wanem"
)

// Fidelity says whether the link was as wanted while a trial ran.
type Fidelity string

// The verdicts. Only OK trials count.
const (
	OK         Fidelity = "ok"
	Off        Fidelity = "off"         // the RTT before the load was not the wanted one
	Drift      Fidelity = "drift"       // it was before the load, but not after it
	Drops      Fidelity = "drops"       // the link dropped packets that it was not asked to drop
	RateMissed Fidelity = "rate-missed" // open loop: the volume could not take the rate
)

// rateTolerance is the share of an open loop's writes that may start late
// because of the window's edges.
const rateTolerance = 0.001

// bareWire is the RTT that any two network namespaces may have: no emulator
// can make a link shorter than the kernel's own path.
const bareWire = 100 * time.Microsecond

// tolerance is how far the median RTT may be from the wanted one: 20 us, which
// an idle kernel's scheduler takes at times, or 3 %, and the median of a
// jittered path does not settle within a few probes.
func tolerance(link wanem.Link) time.Duration {
	return max(20*time.Microsecond, time.Duration(0.03*float64(link.RTT()))) + link.Jitter
}

// isOff tells whether an RTT in microseconds is not the wanted one.
func isOff(rttUS float64, link wanem.Link) bool {
	want, allowed := link.RTT(), tolerance(link)
	return rttUS > max(micros(want+allowed), micros(bareWire)) || rttUS < micros(want-allowed)
}

// judge labels a trial and says why in words.
func (t *Trial) judge(link wanem.Link) {
	want, allowed := link.RTT(), tolerance(link)
	t.Fidelity, t.Why = OK, ""
	switch {
	case t.Drops > 0 && link.Loss == 0:
		t.Fidelity, t.Why = Drops, fmt.Sprintf("%d packets dropped", t.Drops)
	case isOff(t.RTTBeforeUS, link):
		t.Fidelity, t.Why = Off, fmt.Sprintf("RTT %.0f us, wanted %.0f ± %.0f", t.RTTBeforeUS, micros(want), micros(allowed))
	case isOff(t.RTTAfterUS, link):
		t.Fidelity, t.Why = Drift, fmt.Sprintf("RTT %.0f us before, %.0f after the load, wanted %.0f ± %.0f",
			t.RTTBeforeUS, t.RTTAfterUS, micros(want), micros(allowed))
	case t.Late > 0 && float64(t.Late) > rateTolerance*float64(t.Writes):
		t.Fidelity, t.Why = RateMissed, fmt.Sprintf("%d of %d writes did not start within a second of the window's end", t.Late, t.Writes)
	}
}
