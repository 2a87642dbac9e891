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
	for _, p := range points {
		if p.Fidelity == OK {
			km = append(km, p.Km)
			one = append(one, p.P99US)
			two = append(two, p.P99US+p.RTTGotUS)
		}
	}
	limits := []Limit{} // [] in JSON, not null
	for _, budget := range budgets {
		l := Limit{BudgetUS: micros(budget)}
		l.Km, l.How = crossing(km, one, l.BudgetUS)
		l.KmTwo, l.HowTwo = crossing(km, two, l.BudgetUS)
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

// notes says where p99 falls with distance, which no link makes it do.
func notes(points []*Point) []string {
	list := []string{} // [] in JSON, not null
	var before *Point
	for _, p := range points {
		if p.Fidelity != OK {
			continue
		}
		if before != nil && p.P99US < before.P99US {
			list = append(list, fmt.Sprintf("p99 at %s km (%.0f us) is above that at %s km (%.0f us): not distance but something else on this machine made it so, and the limits near it are uncertain; a longer --duration or more --repeats help.",
				formatKm(before.Km), before.P99US, formatKm(p.Km), p.P99US))
		}
		before = p
	}
	return list
}
