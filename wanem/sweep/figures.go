package sweep

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// room is the share of a figure's width that is kept for labels at its right.
const room = 0.16

func (r *Result) okPoints() (points []*Point) {
	for _, p := range r.Points {
		if p.Fidelity == OK {
			points = append(points, p)
		}
	}
	return points
}

// series is one value of each point, in units of 1/scale.
func series(points []*Point, scale float64, value func(*Point) float64) (xy plotter.XYs) {
	for _, p := range points {
		xy = append(xy, plotter.XY{X: p.Km, Y: value(p) / scale})
	}
	return xy
}

func median50(p *Point) float64 { return p.P50US }
func tail99(p *Point) float64   { return float64(p.P99US) }

// latencyFigure is latency against km: what was measured, what light and the
// equipment alone cost for one and for two round trips, and the budgets.
func (r *Result) latencyFigure() (template.HTML, error) {
	const ms = 1000
	f := newFigure("distance, km", "write latency, ms")
	points := r.okPoints()
	last := r.Points[len(r.Points)-1].Km
	top := r.latencyTop() / ms
	f.X.Min, f.X.Max, f.Y.Min, f.Y.Max = 0, last*(1+room), 0, top

	r.roundTripLine(f, 1, last, top)
	r.roundTripLine(f, 2, last, top)
	if len(points) > 0 {
		p50 := series(points, ms, median50)
		tailed := slices.DeleteFunc(slices.Clone(points), func(p *Point) bool { return !p.P99US.Known() })
		p99 := series(tailed, ms, tail99)
		if len(tailed) > 0 {
			f.band(series(tailed, ms, median50), p99, bandColor)
			f.line(p99, tailColor, 1.75)
			f.dots(p99, tailColor, 2.5, draw.CircleGlyph{})
		}
		f.line(p50, medianColor, 2.25)
		f.dots(r.medians(OK, ms), medianColor, 2.5, draw.CircleGlyph{})
		f.endLabels(last, top, p50, p99)
	}
	f.dots(r.missed(ms), mutedColor, 4, draw.CrossGlyph{})
	r.budgetLines(f, last, top, ms)
	f.X.Tick.Marker, f.Y.Tick.Marker = ticks(last, plain), ticks(top, plain)
	return f.svg("Write latency against distance")
}

// latencyTop is the highest latency that the figure shows: everything that was
// measured, but two round trips only as far as they come along.
func (r *Result) latencyTop() float64 {
	top := 1.0
	for _, p := range r.Points {
		top = max(top, p.P50US*1.12, p.RTTWantUS*1.35)
		if p.P99US.Known() {
			top = max(top, float64(p.P99US)*1.12)
		}
	}
	return top
}

// roundTripLine draws n round trips of a target whose writes cross the link.
func (r *Result) roundTripLine(f *figure, n int, last, top float64) {
	if !r.Facts.OneCopy {
		f.roundTrips(r.config, n, last, top)
	}
}

// roundTrips ends where it leaves the figure, with its name there.
func (f *figure) roundTrips(c Config, n int, last, top float64) {
	at := func(km float64) float64 { return float64(n) * micros(c.Link(km).RTT()) / 1000 }
	end := last
	if at(last) > top {
		end = last * (top - at(0)) / (at(last) - at(0))
	}
	if end <= 0 {
		return
	}
	f.line(plotter.XYs{{X: 0, Y: at(0)}, {X: end, Y: at(end)}}, mutedColor, 1, 5, 4)
	words := fmt.Sprintf("%d RTT", n)
	if end < last {
		f.label(end, top, words, mutedColor, vg.Point{X: 6, Y: -11})
	} else {
		f.label(end, at(end), words, mutedColor, vg.Point{X: 6, Y: -12})
	}
}

// endLabels names the two curves at their right ends, never on top of each other.
func (f *figure) endLabels(last, top float64, p50, p99 plotter.XYs) {
	low := p50[len(p50)-1]
	f.label(low.X, low.Y, "p50", medianColor, vg.Point{X: 6, Y: -1})
	if len(p99) == 0 {
		return
	}
	high := p99[len(p99)-1]
	apart := top * float64(textSize) * 1.25 / float64(figureHeight)
	high.Y = max(high.Y, low.Y+apart)
	f.label(high.X, high.Y, "p99", tailColor, vg.Point{X: 6, Y: -3})
}

// medians are those of the single trials with a verdict.
func (r *Result) medians(verdict Fidelity, scale float64) (xy plotter.XYs) {
	for _, t := range r.trials {
		if t.Fidelity == verdict {
			xy = append(xy, plotter.XY{X: t.Km, Y: t.P50US / scale})
		}
	}
	return xy
}

// missed are the medians of the trials that are left out.
func (r *Result) missed(scale float64) (xy plotter.XYs) {
	for _, t := range r.trials {
		if t.Fidelity != OK {
			xy = append(xy, plotter.XY{X: t.Km, Y: t.P50US / scale})
		}
	}
	return xy
}

func (r *Result) budgetLines(f *figure, last, top, scale float64) {
	for _, l := range r.Limits {
		y := l.BudgetUS / scale
		if y > top {
			continue
		}
		f.line(plotter.XYs{{X: 0, Y: y}, {X: last, Y: y}}, budgetColor, 1, 2, 3)
		words := formatUS(l.BudgetUS)
		if l.How == Interpolated {
			words = fmt.Sprintf("%s: %.0f km", words, l.Km)
			f.line(plotter.XYs{{X: l.Km, Y: 0}, {X: l.Km, Y: y}}, budgetColor, 1, 2, 3)
			f.dots(plotter.XYs{{X: l.Km, Y: y}}, budgetColor, 4, draw.CircleGlyph{})
		}
		// At the end where the curves are far away.
		if l.How == Interpolated && l.Km < last/2 {
			f.alignedLabel(last, y, words, budgetColor, text.XRight, vg.Point{X: -4, Y: 4})
		} else {
			f.label(0, y, words, budgetColor, vg.Point{X: 6, Y: 4})
		}
	}
}

// iopsFigure is writes per second against km with the interval over repeats.
func (r *Result) iopsFigure() (template.HTML, error) {
	f := newFigure("distance, km", r.config.things()+" per second (logarithmic)")
	points := r.okPoints()
	last := r.Points[len(r.Points)-1].Km
	low, high := math.Inf(1), 0.0
	for _, p := range points {
		low, high = min(low, p.IOPS/1.5), max(high, p.IOPS*1.5)
	}
	if len(points) == 0 {
		low, high = 1, 1000
	}
	f.Y.Scale = plot.LogScale{}
	f.X.Min, f.X.Max, f.Y.Min, f.Y.Max = 0, last*(1+room), low, high
	for _, p := range points {
		f.bar(p.Km, p.IOPSCI, medianColor)
	}
	if xy := series(points, 1, func(p *Point) float64 { return p.IOPS }); len(xy) > 0 {
		f.line(xy, medianColor, 2.25)
		f.dots(xy, medianColor, 3, draw.CircleGlyph{})
		for _, at := range xy {
			f.label(at.X, at.Y, grouped(at.Y), medianColor, vg.Point{X: 6, Y: 4})
		}
	}
	f.X.Tick.Marker, f.Y.Tick.Marker = ticks(last, plain), logTicks(low, high, grouped)
	return f.svg("Writes per second against distance")
}

// cdfFigure is the share of writes that are at least as fast, for each
// distance, on axes that give the tail as much room as the body.
func (r *Result) cdfFigure() (template.HTML, error) {
	f := newFigure("write latency, ms (logarithmic)", "share of writes at least as fast")
	points := r.okPoints()
	f.Y.Min, f.Y.Max = 0, mostNines*1.08
	f.Y.Tick.Marker = plot.ConstantTicks{
		{Value: 0, Label: "0 %"}, {Value: nines(50), Label: "50 %"}, {Value: nines(90), Label: "90 %"},
		{Value: nines(99), Label: "99 %"}, {Value: nines(99.9), Label: "99.9 %"}, {Value: nines(99.99), Label: "99.99 %"},
	}
	low, high := math.Inf(1), 0.0
	for i, p := range points {
		c := rampColor(i, len(points))
		xy := cdf(p)
		low, high = min(low, xy[0].X), max(high, xy[len(xy)-1].X)
		f.line(xy, c, 1.75)
		// Where the curves are steep and apart.
		f.alignedLabel(percentile(p.latency, 50)/1000, nines(50), formatKm(p.Km), c, text.XRight, vg.Point{X: -4, Y: 2})
	}
	if len(points) == 0 {
		low, high = 0.1, 10
	}
	f.X.Scale = plot.LogScale{}
	f.X.Min, f.X.Max = low*0.6, high*1.1
	f.X.Tick.Marker = logTicks(f.X.Min, f.X.Max, plain)
	return f.svg("Distribution of write latencies")
}

// mostNines is where the axis of the CDF ends: a little above 99.99 %.
const mostNines = 4.1

// nines is 1 for 90 %, 2 for 99 %, 3 for 99.9 %.
func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }

// cdf gives latency in ms against nines. The slowest write is drawn where its
// share is, not at infinity.
func cdf(p *Point) (xy plotter.XYs) {
	most := 100 * (1 - 0.5/float64(p.latency.TotalCount()))
	for _, b := range p.latency.CumulativeDistribution() {
		y := min(nines(min(b.Quantile, most)), mostNines)
		xy = append(xy, plotter.XY{X: float64(b.ValueAt) / 1e6, Y: y})
	}
	return xy
}

func logTicks(low, high float64, format func(float64) string) (marks plot.ConstantTicks) {
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, factor := range []float64{1, 2, 5} {
			if v := factor * power; v >= low && v <= high {
				marks = append(marks, plot.Tick{Value: v, Label: format(v)})
			}
		}
	}
	return marks
}
