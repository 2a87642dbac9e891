package sweep

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// comparison is the targets side by side, as tables of cells.
type comparison struct{ Summary, Overhead, Limits table }

// table has a row for each target; the first column is its name.
type table struct {
	Head []string
	Rows [][]string
}

func (r *Report) comparison() comparison {
	km := distances(r.config.Km)
	first, last := formatKm(km[0])+" km", formatKm(km[len(km)-1])+" km"
	c := comparison{
		Summary:  table{Head: []string{"target", "round trips", "95% interval", "p50 us at " + first, "at " + last, "p99 us at " + first, "at " + last}},
		Overhead: table{Head: []string{"target"}},
		Limits:   table{Head: []string{"target"}},
	}
	for _, v := range km {
		c.Overhead.Head = append(c.Overhead.Head, formatKm(v)+" km")
	}
	for _, budget := range r.config.Budgets {
		c.Limits.Head = append(c.Limits.Head, formatUS(micros(budget)))
	}
	for _, t := range r.Targets {
		near, far := t.Points[0], t.Points[len(t.Points)-1]
		trips, ci := t.roundTrips()
		c.Summary.add(t.Target, trips, ci, near.cell(Value(near.P50US)), far.cell(Value(far.P50US)), near.cell(near.P99US), far.cell(far.P99US))
		row := []string{t.Target}
		for _, p := range t.Points {
			row = append(row, p.cell(Value(p.OverheadUS)))
		}
		c.Overhead.Rows = append(c.Overhead.Rows, row)
		row = []string{t.Target}
		for _, l := range t.Limits {
			row = append(row, limitKm(l.Km, l.How))
		}
		for len(row) < len(c.Limits.Head) {
			row = append(row, "no link")
		}
		c.Limits.Rows = append(c.Limits.Rows, row)
	}
	return c
}

func (t *table) add(cells ...string) { t.Rows = append(t.Rows, cells) }

// cell is a value of a point, with the point's label if it is not good.
func (p *Point) cell(v Value) string {
	if p.Fidelity != OK {
		return fmt.Sprintf("%v (%s)", v, p.Fidelity)
	}
	return v.String()
}

// roundTrips are the cells of the slope and its interval; a slope that is no answer
// is in brackets.
func (r *Result) roundTrips() (trips, ci string) {
	switch {
	case r.Facts.OneCopy:
		return "none", "one copy"
	case !r.fit.OK:
		return "-", "-"
	case r.Lacking != "":
		return fmt.Sprintf("(%.2f)", r.fit.RoundTrips), r.fit.RoundTripsCI.String()
	}
	return fmt.Sprintf("%.2f", r.fit.RoundTrips), r.fit.RoundTripsCI.String()
}

func (r *Report) writeComparison(w io.Writer) {
	c := r.comparison()
	c.Summary.write(w, tabwriter.AlignRight)
	fmt.Fprintln(w, "\noverhead: median latency less the RTT, us")
	c.Overhead.write(w, tabwriter.AlignRight)
	if len(r.config.Budgets) > 0 {
		fmt.Fprintln(w, "\ndistance at which p99 crosses")
		c.Limits.write(w, 0)
	}
}

// write takes flags of a tabwriter.
func (t table) write(w io.Writer, flags uint) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', flags)
	last := ""
	if flags&tabwriter.AlignRight != 0 {
		last = "\t" // the last column is aligned too
	}
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		fmt.Fprintln(out, strings.Join(row, "\t")+last)
	}
	out.Flush()
}
