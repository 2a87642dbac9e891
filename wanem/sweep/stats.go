package sweep

import (
	"encoding/json"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// confidence is the level of every interval.
const confidence = 0.95

// Interval is a two-sided 95 % confidence interval. It is infinite where the
// data do not bound the value, which JSON shows as null.
type Interval struct{ Low, High float64 }

func (i Interval) bounded() bool { return finite(i.Low) != nil && finite(i.High) != nil }

// MarshalJSON gives [low, high].
func (i Interval) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]*float64{finite(i.Low), finite(i.High)})
}

func finite(f float64) *float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil
	}
	return &f
}

func (i Interval) half() float64 { return (i.High - i.Low) / 2 }

// meanInterval is Student's t interval of the mean of independent values.
func meanInterval(values []float64) (mean float64, ci Interval) {
	mean, sd := stat.MeanStdDev(values, nil)
	if len(values) < 2 {
		return mean, Interval{math.Inf(-1), math.Inf(1)}
	}
	freedom := float64(len(values) - 1)
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile((1 + confidence) / 2)
	half := t * stat.StdErr(sd, float64(len(values)))
	return mean, Interval{mean - half, mean + half}
}

// Point is what is known about one distance: its good trials taken together,
// or all of them where none is good.
type Point struct {
	Km        float64 `json:"km"`
	RTTWantUS float64 `json:"rtt_want_us"`
	RTTGotUS  float64 `json:"rtt_got_us"`
	// OverheadUS is what a write takes beyond the RTT: P50US - RTTGotUS.
	OverheadUS float64 `json:"overhead_us"`
	P50US      float64 `json:"p50_us"` // p50, p90, p99: median of the repeats'
	P90US      float64 `json:"p90_us"`
	P99US      Value   `json:"p99_us"`
	P999US     Value   `json:"p99_9_us"` // from here on: of all writes together
	P9999US    Value   `json:"p99_99_us"`
	MaxUS      float64 `json:"max_us"`
	MeanUS     float64 `json:"mean_us"`
	IOPS       float64 `json:"iops"`

	P50CI  Interval `json:"p50_ci95_us"` // of the repeats' medians
	P99CI  Interval `json:"p99_ci95_us"`
	MeanCI Interval `json:"mean_ci95_us"`
	IOPSCI Interval `json:"iops_ci95"`

	Writes   int64    `json:"writes"`
	Verified int64    `json:"verified_blocks"`
	Drops    uint64   `json:"drops"`
	Fidelity Fidelity `json:"fidelity"`
	Why      string   `json:"why,omitempty"`
	Trials   int      `json:"trials"`   // that the figures are from
	LeftOut  int      `json:"left_out"` // trials whose link was not as wanted
	Probes   []Probe  `json:"probes,omitempty"`

	latency     *hdrhistogram.Histogram
	leastWrites int64 // of one of the trials
}

// newPoint takes the trials of one distance together.
func newPoint(trials []*Trial) *Point {
	good := goodTrials(trials)
	p := &Point{Km: trials[0].Km, RTTWantUS: trials[0].RTTWantUS, Fidelity: OK, LeftOut: len(trials) - len(good)}
	if len(good) == 0 {
		p.Fidelity, p.Why = trials[0].Fidelity, trials[0].Why
		good = trials
	}
	p.Trials, p.latency = len(good), newHistogram()
	var rtt, p50, p90, p99, mean, iops []float64
	least := good[0].Writes
	for _, t := range good {
		p.latency.Merge(t.latency)
		rtt, iops = append(rtt, t.rttUS()), append(iops, t.IOPS)
		p50, p90 = append(p50, t.P50US), append(p90, percentile(t.latency, 90))
		if t.P99US.Known() {
			p99 = append(p99, float64(t.P99US))
		}
		least = min(least, t.Writes)
		mean = append(mean, t.MeanUS)
		p.Writes += t.Writes
	}
	for _, t := range trials {
		p.Verified += t.Verified
		p.Drops += t.Drops
		p.Probes = append(p.Probes, t.Probes...)
	}
	p.RTTGotUS = stat.Mean(rtt, nil)
	p.IOPS, p.IOPSCI = meanInterval(iops)
	_, p.P50CI = meanInterval(p50)
	if p.P99US = unknown; len(p99) == len(good) {
		p.P99US = Value(middle(p99))
		_, p.P99CI = meanInterval(p99)
	} else {
		p.P99CI = Interval{math.Inf(-1), math.Inf(1)}
	}
	_, p.MeanCI = meanInterval(mean)
	// One repeat in three that met a busy machine would decide a p99 of them all.
	p.P50US, p.P90US = middle(p50), middle(p90)
	p.OverheadUS, p.leastWrites = p.P50US-p.RTTGotUS, least
	// Further out one repeat has too few writes.
	p.P999US, p.P9999US = tail(p.latency, 99.9), tail(p.latency, 99.99)
	p.MaxUS, p.MeanUS = float64(p.latency.Max())/1000, p.latency.Mean()/1000
	return p
}

// middle is the median of the repeats' values.
func middle(values []float64) float64 { return median(slices.Sorted(slices.Values(values))) }

func goodTrials(trials []*Trial) (good []*Trial) {
	for _, t := range trials {
		if t.Fidelity == OK {
			good = append(good, t)
		}
	}
	return good
}
