package sweep

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"slices"
)

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"f0":      func(v float64) string { return grouped(v) },
	"us":      formatUS,
	"km":      formatKm,
	"bytes":   func(n int) string { return formatBytes(int64(n)) },
	"limitKm": limitKm,
}).Parse(pageText))

// pageData is what the template sees.
type pageData struct {
	*Report
	Fit                Fit
	Title, Integrity   string
	Latency, IOPS, CDF template.HTML
	Conditions         []condition
	Missed             []string
	Probed             bool
}

type condition struct{ Name, Value string }

func (r *Report) html() ([]byte, error) {
	data := pageData{
		Report: r, Fit: r.fit, Integrity: r.integrity(),
		Title:      r.config.what() + " over " + r.config.profileName(),
		Conditions: r.conditions(), Missed: r.missedTrials(),
	}
	for _, p := range r.Points {
		data.Probed = data.Probed || len(p.Probes) > 0
	}
	var err error
	if data.Latency, err = r.latencyFigure(); err != nil {
		return nil, err
	}
	if data.IOPS, err = r.iopsFigure(); err != nil {
		return nil, err
	}
	if data.CDF, err = r.cdfFigure(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// missedTrials says of each trial that is left out why.
func (r *Report) missedTrials() (list []string) {
	for _, t := range r.trials {
		if t.Fidelity != OK {
			list = append(list, fmt.Sprintf("%s km, repeat %d: %s: %s", formatKm(t.Km), t.Repeat+1, t.Fidelity, t.Why))
		}
	}
	return list
}

// conditions lists what the figures depend on.
func (r *Report) conditions() []condition {
	p := r.config.Profile
	list := []condition{
		{"date", r.When},
		{"version", r.Stand.Version},
		{"link model", fmt.Sprintf("%s, %.4f us per km one way, %.4f us per km round trip, km counted along %s, fixed delay %v one way",
			r.config.profileName(), p.USPerKm(), 2*p.USPerKm(), p.Kind, p.Fixed())},
		{"link enforced by", r.Stand.Backend + ": " + r.Stand.BackendWhy},
		{"kernel", r.Host.Kernel},
		{"CPU", fmt.Sprintf("%d × %s", r.Host.CPUs, r.Host.CPU)},
		{"Go", r.Host.Go},
		{"congestion control", r.Stand.Congestion},
	}
	for _, key := range slices.Sorted(maps.Keys(r.Stand.Sysctls)) {
		list = append(list, condition{key, r.Stand.Sysctls[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(r.Parameters)) {
		list = append(list, condition{"--" + key, r.Parameters[key]})
	}
	for _, command := range r.Stand.Commands {
		list = append(list, condition{"process", command})
	}
	return list
}
