package sweep

import (
	_ "embed"
	"html/template"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// palette gives the colours' names their looks, on light and on dark.
//
//go:embed palette.css
var palette string

// chart is the sweep in one picture: of one target its latency, of several the
// median of each, with the round trip that the link takes.
func (r *Report) chart() (template.HTML, error) {
	if !r.several() {
		return r.latencyFigure()
	}
	const ms = 1000
	f := newFigure("distance, km", "median write latency, ms")
	km := distances(r.config.Km)
	last, top := km[len(km)-1], 0.001
	for _, t := range r.Targets {
		for _, p := range t.okPoints() {
			top = max(top, p.P50US*1.12/ms)
		}
	}
	f.X.Min, f.X.Max, f.Y.Min, f.Y.Max = 0, last*(1+room), 0, top
	f.roundTrips(r.config, 1, last, top)
	var ends []end
	for i, t := range r.Targets {
		xy := series(t.okPoints(), ms, median50)
		if len(xy) == 0 {
			continue
		}
		f.line(xy, targetColor(i), 2.25)
		f.dots(xy, targetColor(i), 3, draw.CircleGlyph{})
		ends = append(ends, end{t.Target, xy[len(xy)-1], i})
	}
	f.nameEnds(ends, top)
	f.X.Tick.Marker, f.Y.Tick.Marker = ticks(last, plain), ticks(top, plain)
	return f.svg("Median write latency of " + strings.Join(r.targetNames(), ", ") + " against distance")
}

func (r *Report) targetNames() (list []string) {
	for _, t := range r.Targets {
		list = append(list, t.Target)
	}
	return list
}

// end is where the line of a target ends.
type end struct {
	name   string
	at     plotter.XY
	target int
}

// nameEnds writes names at the right ends of lines, none on top of another.
func (f *figure) nameEnds(ends []end, top float64) {
	slices.SortFunc(ends, func(a, b end) int {
		if a.at.Y < b.at.Y {
			return -1
		}
		return 1
	})
	apart := top * float64(textSize) * 1.25 / float64(figureHeight)
	below := -apart
	for _, e := range ends {
		y := max(e.at.Y, below+apart)
		f.label(e.at.X, y, e.name, targetColor(e.target), vg.Point{X: 6, Y: -3})
		below = y
	}
}

var (
	cssDefinition = regexp.MustCompile(`(--[\w-]+):\s*([^;]+);`)
	cssUse        = regexp.MustCompile(`var\((--[\w-]+)\)`)
)

// standalone makes a figure for a page a file of its own, on white: programs other
// than browsers do not know CSS variables.
func standalone(svg string) []byte {
	light, _, _ := strings.Cut(palette, "}")
	colors := map[string]string{}
	for _, definition := range cssDefinition.FindAllStringSubmatch(light, -1) {
		colors[definition[1]] = definition[2]
	}
	const looks = `<rect width="100%" height="100%" fill="#fff"/><g font-family="'Liberation Sans', Arial, sans-serif">`
	head := strings.Index(svg, "</title>") + len("</title>")
	svg = svg[:head] + looks + strings.TrimSuffix(strings.TrimSpace(svg[head:]), "</svg>") + "</g></svg>\n"
	return []byte(cssUse.ReplaceAllStringFunc(svg, func(use string) string { return colors[cssUse.FindStringSubmatch(use)[1]] }))
}
