package sweep

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// line is y = Intercept + Slope x, fitted by Theil and Sen.
type line struct {
	slope, intercept float64
	slopeCI          Interval
	r2               float64
}

// theilSen fits a line through points of at least two groups. The slope is the
// median of those of all pairs from different groups: repeats of one distance
// differ in x by noise only, and say nothing about it. The intercept is the
// median of what is left at each point.
func theilSen(group, x, y []float64) line {
	var slopes []float64
	for i := range x {
		for j := range i {
			if group[i] != group[j] && x[i] != x[j] {
				slopes = append(slopes, (y[i]-y[j])/(x[i]-x[j]))
			}
		}
	}
	slices.Sort(slopes)
	l := line{slope: median(slopes), slopeCI: senInterval(slopes, group)}
	rest := make([]float64, len(x))
	for i := range x {
		rest[i] = y[i] - l.slope*x[i]
	}
	slices.Sort(rest)
	l.intercept = median(rest)
	l.r2 = stat.RSquared(x, y, nil, l.intercept, l.slope)
	return l
}

// senInterval takes the slopes at the ranks (N - C) / 2 and (N + C) / 2 + 1 of the N
// sorted ones, counted from 1, where C is the normal quantile times the deviation of Kendall's S under no
// trend, corrected for ties (Sen 1968, equation 2.6).
func senInterval(slopes, group []float64) Interval {
	n := float64(len(group))
	variance := n * (n - 1) * (2*n + 5)
	for _, ties := range tieSizes(group) {
		variance -= ties * (ties - 1) * (2*ties + 5)
	}
	z := distuv.UnitNormal.Quantile((1 + confidence) / 2)
	c := z * math.Sqrt(variance/18)
	low := int(math.Floor((float64(len(slopes))-c)/2)) - 1
	high := int(math.Ceil((float64(len(slopes)) + c) / 2))
	if low < 0 || high >= len(slopes) { // too few points to bound it
		return Interval{math.Inf(-1), math.Inf(1)}
	}
	return Interval{slopes[low], slopes[high]}
}

func tieSizes(group []float64) (sizes []float64) {
	count := map[float64]float64{}
	for _, v := range group {
		count[v]++
	}
	for _, n := range count {
		sizes = append(sizes, n)
	}
	return sizes
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Fit is how the median latency grows with distance, over the good trials.
type Fit struct {
	// RoundTrips is the slope against the achieved RTT: 1 means that a write
	// waits for one round trip.
	RoundTrips   float64
	RoundTripsCI Interval
	// RoundTripsNominal is the slope against km over what the profile says a
	// km costs, so it also holds the emulator's error.
	RoundTripsNominal float64
	USPerKm           float64
	USPerKmCI         Interval
	InterceptUS       float64 // at 0 km
	R2                float64 // of the line against achieved RTT
	Trials            int     // that it was fitted to
	OK                bool    // false: fewer than two distances were measured well
}

func newFit(c Config, trials []*Trial) Fit {
	good := goodTrials(trials)
	var km, rtt, p50 []float64
	for _, t := range good {
		km, rtt, p50 = append(km, t.Km), append(rtt, t.rttUS()), append(p50, t.P50US)
	}
	if len(distances(km)) < 2 {
		return Fit{Trials: len(good)}
	}
	byRTT, byKm := theilSen(km, rtt, p50), theilSen(km, km, p50)
	return Fit{
		RoundTrips: byRTT.slope, RoundTripsCI: byRTT.slopeCI, R2: byRTT.r2,
		RoundTripsNominal: byKm.slope / c.rttPerKm(),
		USPerKm:           byKm.slope, USPerKmCI: byKm.slopeCI, InterceptUS: byKm.intercept,
		Trials: len(good), OK: true,
	}
}

// widest is the half-width of an interval, as a share of its slope, beyond which
// the slope is no answer.
const widest = 0.25

// lacking says what is missing to an answer, "" if nothing is.
func (f Fit) lacking() string {
	half := f.RoundTripsCI.half()
	switch {
	case !f.OK:
		return "fewer than two distances were measured on a link that was as wanted"
	case f.RoundTrips <= 0:
		return fmt.Sprintf("the median does not grow with distance (%.2f round trips), which no mirror can do: something else on this machine decided it; use longer distances or a longer --duration", f.RoundTrips)
	case !f.RoundTripsCI.bounded():
		return fmt.Sprintf("%d trials are too few for a 95%% interval of their slope (%.2f round trips): use a further distance or more --repeats", f.Trials, f.RoundTrips)
	case half > widest*f.RoundTrips:
		return fmt.Sprintf("the 95%% interval of the round trips, %s, is too wide: use longer distances, a longer --duration or more --repeats", f.RoundTripsCI)
	}
	return ""
}
