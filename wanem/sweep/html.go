package sweep

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
)

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"f0":      func(v float64) string { return grouped(v) },
	"us":      formatUS,
	"km":      formatKm,
	"bytes":   func(n int) string { return formatBytes(int64(n)) },
	"limitKm": limitKm,
	"title":   func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
}).Parse(pageText))

// pageData is what the template sees.
type pageData struct {
	Title, Slow string
	Palette     template.CSS
	Answers     []string
	Comparison  *comparison // nil with one target
	Chart       template.HTML
	Limits      []Limit
	Results     []resultData
	Conditions  []condition
}

// resultData is one target's part.
type resultData struct {
	*Result
	Several            bool
	Fit                Fit
	Heading, Integrity string
	Things, PerSecond  string
	Latency, IOPS, CDF template.HTML
	Missed             []string
	Probed             bool
}

type condition struct{ Name, Value string }

func (r *Report) html() ([]byte, error) {
	data := pageData{
		Title: r.config.what() + " over " + r.config.profileName(), Slow: r.Host.slow(), Palette: template.CSS(palette),
		Answers: r.answers(), Limits: r.Limits, Conditions: r.conditions(),
	}
	if r.several() {
		c := r.comparison()
		data.Comparison = &c
		var err error
		if data.Chart, err = r.chart(); err != nil {
			return nil, err
		}
	}
	for _, t := range r.Targets {
		part, err := t.page()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Target, err)
		}
		part.Several = r.several()
		data.Results = append(data.Results, part)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (r *Result) page() (data resultData, err error) {
	data = resultData{
		Result: r, Fit: r.fit, Heading: r.heading(), Integrity: r.integrity(), Missed: r.missedTrials(),
		Things: r.config.things(), PerSecond: r.config.perSecond(),
	}
	for _, p := range r.Points {
		data.Probed = data.Probed || len(p.Probes) > 0
	}
	if data.Latency, err = r.latencyFigure(); err != nil {
		return data, err
	}
	if data.IOPS, err = r.iopsFigure(); err != nil {
		return data, err
	}
	data.CDF, err = r.cdfFigure()
	return data, err
}

// missedTrials says of each trial that is left out why.
func (r *Result) missedTrials() (list []string) {
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
	cpu := fmt.Sprintf("%d × %s", r.Host.CPUs, r.Host.CPU)
	if slow := r.Host.slow(); slow != "" {
		cpu += ": " + slow
	}
	list := []condition{
		{"date", r.When},
		{"link model", fmt.Sprintf("%s, %.4f us per km one way, %.4f us per km round trip, km counted along %s, fixed delay %v one way",
			r.config.profileName(), p.USPerKm(), 2*p.USPerKm(), p.Kind, p.Fixed())},
		{"link enforced by", r.Stand.Backend + ": " + r.Stand.BackendWhy},
		{"kernel", r.Host.Kernel},
		{"CPU", cpu},
		{"Go", r.Host.Go},
		{"congestion control", r.Stand.Congestion},
	}
	for _, key := range slices.Sorted(maps.Keys(r.Stand.Sysctls)) {
		list = append(list, condition{key, r.Stand.Sysctls[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(r.Parameters)) {
		list = append(list, condition{"--" + key, r.Parameters[key]})
	}
	for _, t := range r.Targets {
		list = append(list, condition{t.Target + " version", t.Facts.Version},
			condition{t.Target + " RTT without distance", fmt.Sprintf("%.0f us", t.BareRTTUS)})
		for _, command := range t.Facts.Commands {
			list = append(list, condition{t.Target + " process", command})
		}
	}
	return list
}
