package sweep

import (
	"cmp"
	"slices"
)

// Result is the outcome for one target.
type Result struct {
	Target string `json:"target"`
	Answer string `json:"answer"` // one sentence

	RoundTrips        *float64  `json:"round_trips_per_write"` // null: too little was measured well, or nothing crosses the link
	RoundTripsCI      *Interval `json:"round_trips_ci95"`
	RoundTripsNominal *float64  `json:"round_trips_per_write_nominal"` // against the wanted delay
	USPerKm           *float64  `json:"slope_us_per_km"`
	USPerKmCI         *Interval `json:"slope_ci95_us_per_km"`
	InterceptUS       *float64  `json:"intercept_us"`
	R2                *float64  `json:"r2"`
	Lacking           string    `json:"lacking,omitempty"` // what an answer needs that was not measured
	TrialsFitted      int       `json:"trials_fitted"`
	TrialsLeftOut     int       `json:"trials_left_out"`

	ReplicasIdentical bool  `json:"replicas_identical"`
	BytesCompared     int64 `json:"bytes_compared"` // on each replica, over all trials
	BlocksVerified    int64 `json:"blocks_verified"`

	BareRTTUS float64     `json:"bare_rtt_us"` // of the link without any distance
	Points    []*Point    `json:"points"`
	Limits    []Limit     `json:"limits"`
	Notes     []string    `json:"notes"` // what a reader of the limits must know
	Facts     TargetFacts `json:"facts"`

	config Config
	fit    Fit
	trials []*Trial // by distance
}

// newResult takes the trials of one target together.
func newResult(c Config, target Target, all []*Trial) *Result {
	r := &Result{Target: target.Name(), Facts: target.Facts(), config: c}
	for _, t := range all {
		if t.Target == r.Target {
			r.trials = append(r.trials, t)
		}
	}
	slices.SortStableFunc(r.trials, func(a, b *Trial) int { return cmp.Compare(a.Km, b.Km) })
	r.addTrials()
	r.Limits, r.Notes = []Limit{}, notes(r.Points, !r.Facts.OneCopy)
	if !r.Facts.OneCopy {
		r.Limits = newLimits(c.Budgets, r.Points)
		r.addFit(newFit(c, r.trials))
	}
	r.Answer = r.answer()
	return r
}

func (r *Result) addTrials() {
	byKm := map[float64][]*Trial{}
	var bare []float64
	r.ReplicasIdentical = !r.Facts.OneCopy
	for _, t := range r.trials {
		r.BytesCompared += t.Compared
		r.ReplicasIdentical = r.ReplicasIdentical && t.Compared > 0
		byKm[t.Km] = append(byKm[t.Km], t)
		bare = append(bare, t.BareRTTUS)
	}
	r.BareRTTUS = middle(bare)
	for _, km := range distances(r.config.Km) {
		point := newPoint(byKm[km])
		r.Points = append(r.Points, point)
		r.TrialsLeftOut += point.LeftOut
		r.BlocksVerified += point.Verified
	}
}

func (r *Result) addFit(f Fit) {
	r.fit, r.TrialsFitted, r.Lacking = f, f.Trials, f.lacking()
	if f.OK {
		r.RoundTrips, r.RoundTripsCI, r.RoundTripsNominal = &f.RoundTrips, &f.RoundTripsCI, &f.RoundTripsNominal
		r.USPerKm, r.USPerKmCI, r.InterceptUS, r.R2 = &f.USPerKm, &f.USPerKmCI, &f.InterceptUS, finite(f.R2)
	}
}
