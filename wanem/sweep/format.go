package sweep

import (
	"fmt"
	"strconv"
	"strings"
)

// answer is the outcome in one sentence.
func (r *Result) answer() string {
	if r.Facts.OneCopy {
		return r.oneCopy()
	}
	if r.Lacking != "" {
		return "No answer: " + r.Lacking + "."
	}
	var b strings.Builder
	fmt.Fprintf(&b, "A %s takes %.2f round trips (95%% interval %s): its median grows by %.2f us per km of %s from %.0f us at 0 km",
		r.config.what(), r.fit.RoundTrips, r.fit.RoundTripsCI, r.fit.USPerKm, r.config.Profile.Kind, r.fit.InterceptUS)
	for i, l := range r.Limits {
		sep := ","
		if i == 0 {
			sep = "; p99 crosses"
		}
		fmt.Fprintf(&b, "%s %s", sep, l.phrase())
	}
	return b.String() + "."
}

// oneCopy is the answer where nothing is mirrored.
func (r *Result) oneCopy() string {
	p := r.Points[0]
	text := fmt.Sprintf("A %s to one copy, across no link, takes %.0f us at the median", r.config.what(), p.P50US)
	if p.P99US.Known() {
		text += fmt.Sprintf(" and %v us at p99", p.P99US)
	}
	return text + "."
}

// String gives "0.984 to 1.021".
func (i Interval) String() string {
	if !i.bounded() {
		return "unbounded"
	}
	return fmt.Sprintf("%.3f to %.3f", i.Low, i.High)
}

// PlusMinus is half of the interval for a table, "-" if it is unbounded.
func (i Interval) PlusMinus() string {
	if !i.bounded() {
		return "-"
	}
	return strconv.FormatFloat(i.half(), 'f', 0, 64)
}

func (l Limit) phrase() string {
	budget := formatUS(l.BudgetUS)
	switch l.How {
	case Interpolated:
		return fmt.Sprintf("%s at %.0f km", budget, l.Km)
	case Extrapolated:
		return fmt.Sprintf("%s at about %.0f km %s", budget, l.Km, l.How)
	case Never:
		return fmt.Sprintf("%s already at the shortest distance", budget)
	}
	return fmt.Sprintf("%s at an unknown distance", budget)
}

// limitKm is the limit for a table: "82 km", "~560 km (extrapolated)".
func limitKm(km float64, how string) string {
	switch how {
	case Interpolated:
		return fmt.Sprintf("%.0f km", km)
	case Extrapolated:
		return fmt.Sprintf("~%.0f km (extrapolated)", km)
	case Never:
		return "none (over it from the start)"
	}
	return how
}

// what names the load: "4 KiB write at queue depth 1".
func (c Config) what() string {
	if c.jobFile() {
		return "write of " + c.Workload
	}
	if c.Workload == Pgbench {
		clients := "1 client"
		if c.QueueDepth > 1 {
			clients = fmt.Sprintf("%d clients", c.QueueDepth)
		}
		return fmt.Sprintf("pgbench transaction on %s with %s", c.FS, clients)
	}
	load := fmt.Sprintf("%s write at queue depth %d", formatBytes(int64(c.BlockSize)), c.QueueDepth)
	if c.Rate > 0 {
		load += fmt.Sprintf(" and %g writes/s", c.Rate)
	}
	return load
}

func formatBytes(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func formatUS(us float64) string {
	if us >= 1e6 {
		return strconv.FormatFloat(us/1e6, 'f', -1, 64) + " s"
	}
	if us >= 1000 {
		return strconv.FormatFloat(us/1000, 'f', -1, 64) + " ms"
	}
	return strconv.FormatFloat(us, 'f', -1, 64) + " us"
}
