package sweep

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours are names: the SVG carries them as CSS variables, so that the page
// decides how they look on a light and on a dark background.
var (
	inkColor    = color.NRGBA{R: 0x01, A: 255}
	mutedColor  = color.NRGBA{R: 0x02, A: 255}
	gridColor   = color.NRGBA{R: 0x03, A: 255}
	medianColor = color.NRGBA{R: 0x04, A: 255}
	tailColor   = color.NRGBA{R: 0x05, A: 255}
	budgetColor = color.NRGBA{R: 0x06, A: 255}
	bandColor   = color.NRGBA{R: 0x07, A: 255}

	cssColors = map[string]string{
		"#010000": "var(--ink)", "#020000": "var(--muted)", "#030000": "var(--grid)",
		"#040000": "var(--median)", "#050000": "var(--tail)", "#060000": "var(--budget)",
		"#070000": "var(--band)",
		"#080000": "var(--target-1)", "#090000": "var(--target-2)", "#0a0000": "var(--target-3)",
		"#0b0000": "var(--target-4)", "#0c0000": "var(--target-5)", "#0d0000": "var(--target-6)",
	}
)

// targetColors is the number of colours for targets; more of them share these.
const targetColors = 6

// targetColor is that of the i-th target's line.
func targetColor(i int) color.NRGBA { return color.NRGBA{R: uint8(0x08 + i%targetColors), A: 255} }

// rampColor gives the i-th of n distances a hue from blue to orange, of a
// lightness that can be read on both backgrounds.
func rampColor(i, n int) color.NRGBA {
	from, to := [3]float64{46, 134, 222}, [3]float64{230, 110, 30}
	f := float64(i) / math.Max(1, float64(n-1))
	mix := func(c int) uint8 { return uint8(from[c] + f*(to[c]-from[c])) }
	return color.NRGBA{R: mix(0), G: mix(1), B: mix(2), A: 255}
}

const (
	figureWidth  = 720 * vg.Length(1)
	figureHeight = 380 * vg.Length(1)
	textSize     = 11 * vg.Length(1)
)

// figure is one plot in the report's style.
type figure struct {
	*plot.Plot
	err error // of the first layer that could not be made
}

func newFigure(x, y string) *figure {
	f := &figure{Plot: plot.New()}
	f.BackgroundColor = color.Transparent
	for axis, label := range map[*plot.Axis]string{&f.X: x, &f.Y: y} {
		axis.Label.Text = label
		axis.Label.Padding = 6
		setStyle(&axis.Label.TextStyle, mutedColor)
		setStyle(&axis.Tick.Label, mutedColor)
		axis.LineStyle.Width = 0
		axis.Tick.LineStyle.Width = 0
		axis.Tick.Length = 4
		axis.Padding = 4
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal = draw.LineStyle{Color: gridColor, Width: 0.75}
	f.Add(grid)
	return f
}

func setStyle(s *text.Style, c color.Color) {
	s.Font.Variant, s.Font.Size, s.Color = "Sans", textSize, c
}

// keep remembers the first error.
func (f *figure) keep(err error) bool {
	if f.err == nil {
		f.err = err
	}
	return err == nil
}

func (f *figure) line(xy plotter.XYs, c color.Color, width vg.Length, dashes ...vg.Length) {
	l, err := plotter.NewLine(xy)
	if f.keep(err) {
		l.LineStyle = draw.LineStyle{Color: c, Width: width, Dashes: dashes}
		f.Add(l)
	}
}

func (f *figure) dots(xy plotter.XYs, c color.Color, radius vg.Length, shape draw.GlyphDrawer) {
	if len(xy) == 0 {
		return
	}
	s, err := plotter.NewScatter(xy)
	if f.keep(err) {
		s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: radius, Shape: shape}
		f.Add(s)
	}
}

// band fills what is between two lines with the same x.
func (f *figure) band(low, high plotter.XYs, c color.Color) {
	outline := append(plotter.XYs(nil), low...)
	for i := len(high) - 1; i >= 0; i-- {
		outline = append(outline, high[i])
	}
	p, err := plotter.NewPolygon(outline)
	if f.keep(err) {
		p.Color, p.LineStyle.Width = c, 0
		f.Add(p)
	}
}

// bar draws an interval at x, as far as it is within the figure.
func (f *figure) bar(x float64, v Interval, c color.Color) {
	if v.bounded() {
		f.line(plotter.XYs{{X: x, Y: max(v.Low, f.Y.Min)}, {X: x, Y: min(v.High, f.Y.Max)}}, c, 1.5)
	}
}

func (f *figure) label(x, y float64, words string, c color.Color, offset vg.Point) {
	f.alignedLabel(x, y, words, c, text.XLeft, offset)
}

func (f *figure) alignedLabel(x, y float64, words string, c color.Color, align text.XAlignment, offset vg.Point) {
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: y}}, Labels: []string{words}})
	if f.keep(err) {
		setStyle(&l.TextStyle[0], c)
		l.TextStyle[0].XAlign = align
		l.Offset = offset
		f.Add(l)
	}
}

// svg draws the figure as an element for an HTML page.
func (f *figure) svg(title string) (template.HTML, error) {
	if f.err != nil {
		return "", f.err
	}
	canvas := vgsvg.New(figureWidth, figureHeight)
	f.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	return template.HTML(inline(b.String(), title)), nil
}

var (
	svgHead   = regexp.MustCompile(`(?s)^.*?<svg [^>]*>`)
	svgFont   = regexp.MustCompile(`font-family:[^;]*;font-variant:[^;]*;font-weight:normal;font-style:normal;`)
	svgColour = regexp.MustCompile(`#0[1-9A-Fa-f]0000`)
)

// inline makes a file's SVG part of a page: it scales with it, and takes fonts
// and colours from its style.
func inline(svg, title string) string {
	head := fmt.Sprintf(`<svg viewBox="0 0 %g %g" role="img" xmlns="http://www.w3.org/2000/svg"><title>%s</title>`,
		float64(figureWidth), float64(figureHeight), template.HTMLEscapeString(title))
	svg = svgHead.ReplaceAllLiteralString(svg, head)
	svg = svgFont.ReplaceAllLiteralString(svg, "")
	return svgColour.ReplaceAllStringFunc(svg, func(c string) string { return cssColors[strings.ToLower(c)] })
}

// ticks are the values 0, step, 2 step, … up to a largest one.
func ticks(most float64, format func(float64) string) plot.ConstantTicks {
	step := niceStep(most / 5)
	var marks []plot.Tick
	for i := 0; float64(i)*step <= most*1.0001; i++ {
		v := float64(i) * step
		marks = append(marks, plot.Tick{Value: v, Label: format(v)})
	}
	return marks
}

// niceStep is the smallest of 1, 2, 5 times a power of ten that is not below v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= v*0.999 {
			return f * power
		}
	}
	return 10 * power
}

// plain has no more digits than float arithmetic leaves true.
func plain(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// grouped is a whole number with thin spaces between thousands.
func grouped(v float64) string {
	s := strconv.FormatFloat(math.Round(v)+0, 'f', 0, 64) // +0: no "-0"
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u2009" + s[i:]
	}
	return s
}
