package sweep

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Report is the outcome of a sweep and everything needed to repeat it.
type Report struct {
	Answer            string `json:"answer"`             // a sentence for each target
	ReplicasIdentical bool   `json:"replicas_identical"` // those of every target that has some
	// Result is that of the first target, so that its parts stand at the top of the JSON.
	*Result
	Targets []*Result `json:"targets"`

	When       string            `json:"when"` // RFC 3339
	Parameters map[string]string `json:"parameters"`
	Host       Host              `json:"host"`
	Stand      Facts             `json:"stand"`

	config Config
}

func newReport(c Config, facts Facts, parameters map[string]string, targets []Target, trials []*Trial) *Report {
	r := &Report{
		When: time.Now().Format(time.RFC3339), Parameters: parameters, Host: ThisHost(), Stand: facts, config: c,
	}
	for _, t := range targets {
		r.Targets = append(r.Targets, newResult(c, t, trials))
	}
	r.Result = r.Targets[0]
	r.Answer = r.Result.Answer
	if r.several() {
		r.Answer = strings.Join(r.answers(), " ")
	}
	r.ReplicasIdentical = r.identical()
	return r
}

// several tells whether there is something to compare.
func (r *Report) several() bool { return len(r.Targets) > 1 }

// answers are those of all targets, each with its name if there are several.
func (r *Report) answers() (list []string) {
	for _, t := range r.Targets {
		if r.several() {
			list = append(list, t.Target+": "+t.Answer)
		} else {
			list = append(list, t.Answer)
		}
	}
	return list
}

func (r *Report) identical() bool {
	mirrored := false
	for _, t := range r.Targets {
		if !t.Facts.OneCopy && !t.ReplicasIdentical {
			return false
		}
		mirrored = mirrored || !t.Facts.OneCopy
	}
	return mirrored
}

// Write writes report.json, points.csv, latency.svg and report.html into a directory.
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
	picture, err := r.chart()
	if err != nil {
		return fmt.Errorf("draw the chart: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "latency.svg"), standalone(string(picture))); err != nil {
		return err
	}
	page, err := r.html()
	if err != nil {
		return fmt.Errorf("render the report: %w", err)
	}
	return writeFile(filepath.Join(dir, "report.html"), page)
}
