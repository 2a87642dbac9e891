package sweep

import (
	"fmt"
	"time"
)

// How a limit was found.
const (
	Interpolated = "interpolated"                           // between two measured distances
	Extrapolated = "(extrapolated, beyond the last point)"  // along the line through p99
	Never        = "above the budget at the first distance" // even there
	Unknown      = "unknown"                                // nothing was measured well
	TooFew       = "unknown (too few writes for a p99)"     // at every distance
)

// Limit is the distance at which p99 first crosses a budget.
type Limit struct {
	BudgetUS float64 `json:"budget_us"`
	Km       float64 `json:"km"` // 0 if never or unknown
	How      string  `json:"how"`
	// The same for storage that takes two round trips a write: one more RTT
	// on top of what was measured.
	KmTwo  float64 `json:"km_two_round_trips"`
	HowTwo string  `json:"how_two_round_trips"`
}

func newLimits(budgets []time.Duration, points []*Point) []Limit {
	var km, one, two []float64
	measured := false
	for _, p := range points {
		if p.Fidelity != OK {
			continue
		}
		measured = true
		if p.P99US.Known() {
			km = append(km, p.Km)
			one = append(one, float64(p.P99US))
			two = append(two, float64(p.P99US)+p.RTTGotUS)
		}
	}
	limits := []Limit{} // [] in JSON, not null
	for _, budget := range budgets {
		l := Limit{BudgetUS: micros(budget)}
		l.Km, l.How = crossing(km, one, l.BudgetUS)
		l.KmTwo, l.HowTwo = crossing(km, two, l.BudgetUS)
		if measured && len(km) == 0 {
			l.How, l.HowTwo = TooFew, TooFew
		}
		limits = append(limits, l)
	}
	return limits
}

// crossing returns where y, given at ascending km, first rises above level.
func crossing(km, y []float64, level float64) (at float64, how string) {
	if len(km) == 0 {
		return 0, Unknown
	}
	if y[0] > level {
		return 0, Never
	}
	for i := 1; i < len(km); i++ {
		if y[i] > level {
			return km[i-1] + (level-y[i-1])/(y[i]-y[i-1])*(km[i]-km[i-1]), Interpolated
		}
	}
	if len(km) < 2 {
		return 0, Unknown
	}
	last := len(km) - 1
	slope := theilSen(km, km, y).slope
	if slope <= 0 {
		return 0, Unknown
	}
	return km[last] + (level-y[last])/slope, Extrapolated
}

// notes says what a reader of p99 and limits must know: where there is none, and, of
// a target that crosses the link, where it falls with distance, which no link makes
// it do.
func notes(points []*Point, crosses bool) []string {
	list := []string{} // [] in JSON, not null
	var before *Point
	for _, p := range points {
		if p.Fidelity != OK {
			continue
		}
		if !p.P99US.Known() {
			list = append(list, fmt.Sprintf("there is no p99 at %s km: it takes at least %d writes a trial, and there were as few as %d: use a longer --duration or a higher --qd.",
				formatKm(p.Km), tails[99], p.leastWrites))
			continue
		}
		if crosses && before != nil && p.P99US < before.P99US {
			list = append(list, fmt.Sprintf("p99 at %s km (%v us) is above that at %s km (%v us): not distance but something else on this machine made it so, and the limits near it are uncertain; a longer --duration or more --repeats help.",
				formatKm(before.Km), before.P99US, formatKm(p.Km), p.P99US))
		}
		before = p
	}
	return list
}
