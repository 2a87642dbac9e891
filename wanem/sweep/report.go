package sweep

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// Report is the outcome of a sweep and everything needed to repeat it.
type Report struct {
	Answer string `json:"answer"` // one sentence

	RoundTrips        *float64  `json:"round_trips_per_write"` // null: too little was measured well
	RoundTripsCI      *Interval `json:"round_trips_ci95"`
	RoundTripsNominal *float64  `json:"round_trips_per_write_nominal"` // against the wanted delay
	USPerKm           *float64  `json:"slope_us_per_km"`
	USPerKmCI         *Interval `json:"slope_ci95_us_per_km"`
	InterceptUS       *float64  `json:"intercept_us"`
	R2                *float64  `json:"r2"`
	TrialsFitted      int       `json:"trials_fitted"`
	TrialsLeftOut     int       `json:"trials_left_out"`

	ReplicasIdentical bool  `json:"replicas_identical"`
	BytesCompared     int64 `json:"bytes_compared"` // on each replica, over all trials
	BlocksVerified    int64 `json:"blocks_verified"`

	Points []*Point `json:"points"`
	Limits []Limit  `json:"limits"`
	Notes  []string `json:"notes"` // what a reader of the limits must know

	When       string            `json:"when"` // RFC 3339
	Parameters map[string]string `json:"parameters"`
	Host       Host              `json:"host"`
	Stand      Facts             `json:"stand"`

	config Config
	fit    Fit
	trials []*Trial
}

func newReport(c Config, facts Facts, parameters map[string]string, trials []*Trial) *Report {
	r := &Report{
		ReplicasIdentical: !slices.ContainsFunc(trials, func(t *Trial) bool { return t.Compared == 0 }),
		When:              time.Now().Format(time.RFC3339), Parameters: parameters, Host: thisHost(), Stand: facts,
		config: c, trials: trials, fit: newFit(c, trials),
	}
	byKm := map[float64][]*Trial{}
	for _, t := range trials {
		r.BytesCompared += t.Compared
		byKm[t.Km] = append(byKm[t.Km], t)
	}
	for _, km := range distances(c.Km) {
		point := newPoint(byKm[km])
		r.Points = append(r.Points, point)
		r.TrialsLeftOut += point.LeftOut
		r.BlocksVerified += point.Verified
	}
	slices.SortStableFunc(r.trials, func(a, b *Trial) int { return cmp.Compare(a.Km, b.Km) })
	r.Limits = newLimits(c.Budgets, r.Points)
	r.Notes = notes(r.Points)
	r.TrialsFitted = r.fit.Trials
	if f := r.fit; f.OK {
		r.RoundTrips, r.RoundTripsCI, r.RoundTripsNominal = &f.RoundTrips, &f.RoundTripsCI, &f.RoundTripsNominal
		r.USPerKm, r.USPerKmCI, r.InterceptUS, r.R2 = &f.USPerKm, &f.USPerKmCI, &f.InterceptUS, finite(f.R2)
	}
	r.Answer = r.answer()
	return r
}

// Write writes report.json, points.csv and report.html into a directory.
func (r *Report) Write(dir string) error {
	if err := writeJSON(filepath.Join(dir, "report.json"), r); err != nil {
		return err
	}
	table, err := r.csv()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "points.csv"), table); err != nil {
		return err
	}
	page, err := r.html()
	if err != nil {
		return fmt.Errorf("render the report: %w", err)
	}
	return writeFile(filepath.Join(dir, "report.html"), page)
}
