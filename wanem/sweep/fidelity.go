package sweep

import (
	"context"
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
	Degraded   Fidelity = "degraded"    // the volume lost a copy for a while
	RateMissed Fidelity = "rate-missed" // open loop: the volume could not take the rate
)

const (
	// rateTolerance is the share of an open loop's writes that may start late
	// because of the window's edges.
	rateTolerance = 0.001
	// scheduling is what an idle kernel's scheduler takes at times.
	scheduling = 20 * time.Microsecond
	// share of the wanted RTT that the median of a few probes may be off by.
	rttShare = 0.02
	// bareWire is the RTT that any two network namespaces may have: no emulator
	// can make a link shorter than the kernel's own path.
	bareWire = 100 * time.Microsecond
	// mostBare is the RTT of a bare link from which on nothing can be measured.
	mostBare = 5 * time.Millisecond
)

// bareRTT is the RTT of a wire without any distance: what this machine adds to
// every RTT that it emulates. A busy moment is no property of the wire, so the best
// of some measurements counts.
func bareRTT(ctx context.Context, w Wire) (best time.Duration, err error) {
	if w == nil {
		return 0, nil
	}
	if err := w.SetLink(ctx, wanem.Link{}); err != nil {
		return 0, fmt.Errorf("set the link to no distance: %w", err)
	}
	for attempt := range attempts {
		rtt, err := w.MeasureRTT(ctx, mostProbes)
		if err != nil {
			return 0, fmt.Errorf("measure the RTT without distance: %w", err)
		}
		if attempt == 0 || rtt.Median < best {
			best = rtt.Median
		}
	}
	if best > mostBare {
		return 0, fmt.Errorf("the link has an RTT of %v without any distance: no distance can be emulated on a machine this busy or slow: free its CPUs", best)
	}
	return best, nil
}

// bounds are the medians, in us, that an RTT may have and count as the wanted one.
type bounds struct{ low, want, high float64 }

// bounds allows an RTT to be longer by what the bare link takes, by some
// scheduling and by a share; shorter only by the latter two.
func (t *Trial) bounds(link wanem.Link) bounds {
	want := micros(link.RTT())
	slack := micros(scheduling+link.Jitter) + rttShare*want
	return bounds{want - slack, want, max(want+slack+t.BareRTTUS, micros(bareWire))}
}

func (b bounds) miss(rttUS float64) bool { return rttUS < b.low || rttUS > b.high }

func (b bounds) String() string {
	return fmt.Sprintf("wanted %.0f, and %.0f to %.0f would do", b.want, max(b.low, 0), b.high)
}

// judge labels a trial and says why in words.
func (t *Trial) judge(link wanem.Link) {
	allowed := t.bounds(link)
	switch {
	// On a lossy link the kernel does not tell the drops that were asked for from others.
	case t.Drops > 0 && link.Loss == 0:
		t.Fidelity, t.Why = Drops, fmt.Sprintf("%d packets dropped", t.Drops)
	case allowed.miss(t.RTTBeforeUS):
		t.Fidelity, t.Why = Off, fmt.Sprintf("RTT %.0f us, %v", t.RTTBeforeUS, allowed)
	case allowed.miss(t.RTTAfterUS):
		t.Fidelity, t.Why = Drift, fmt.Sprintf("RTT %.0f us before, %.0f after the load, %v", t.RTTBeforeUS, t.RTTAfterUS, allowed)
	default:
		t.judgeLoad()
	}
}

// judgeLoad labels a trial whose link was as wanted.
func (t *Trial) judgeLoad() {
	t.Fidelity, t.Why = OK, ""
	switch {
	case t.Degraded != "":
		t.Fidelity, t.Why = Degraded, t.Degraded
	case t.Late > 0 && float64(t.Late) > rateTolerance*float64(t.Writes):
		t.Fidelity, t.Why = RateMissed, fmt.Sprintf("%d of %d writes did not start within a second of the window's end", t.Late, t.Writes)
	}
}
