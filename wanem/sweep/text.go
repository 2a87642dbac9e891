package sweep

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// answer is the outcome in one sentence.
func (r *Report) answer() string {
	if !r.fit.OK {
		return "No answer: fewer than two distances were measured on a link that was as wanted."
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

// WriteText prints the table and the answer for people.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, profile %s (%.4f us per km one way), link by %s\n\n",
		r.config.what(), r.config.profileName(), r.config.Profile.USPerKm(), r.Stand.Backend)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "km\tRTT wanted\tgot\tp50 us\t± 95%\tp99 us\tp99.9 us\tmax us\tIOPS\twrites\tlink\t")
	for _, p := range r.Points {
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.0f\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%s\t\n",
			formatKm(p.Km), p.RTTWantUS, p.RTTGotUS, p.P50US, p.P50CI.PlusMinus(), p.P99US, p.P999US, p.MaxUS, p.IOPS, p.Writes, p.Verdict())
	}
	table.Flush()
	r.writeProbes(w)
	r.writeLimits(w)
	fmt.Fprintf(w, "\n%s\n", r.integrity())
	for _, note := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", note)
	}
	fmt.Fprintf(w, "\n%s\n", r.Answer)
	return nil
}

// Verdict is the label of a point: "ok", "ok, 1 of 3 left out", "drift".
func (p *Point) Verdict() string {
	if p.Fidelity == OK && p.LeftOut > 0 {
		return fmt.Sprintf("ok, %d of %d left out", p.LeftOut, p.LeftOut+p.Trials)
	}
	return string(p.Fidelity)
}

func (r *Report) writeProbes(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nsingle writes\tkm\tRTT us\tcold us\twarm us\tafter idle us\t")
	found := false
	for _, p := range r.Points {
		for _, probe := range p.Probes {
			found = true
			fmt.Fprintf(table, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t\n",
				formatBytes(int64(probe.Bytes)), formatKm(p.Km), p.RTTGotUS, probe.ColdUS, probe.WarmUS, probe.IdleUS)
		}
	}
	if !found {
		fmt.Fprintln(w, "\ncold and after-idle writes: not measured (--idle 0)")
		return
	}
	table.Flush()
}

func (r *Report) writeLimits(w io.Writer) {
	if len(r.Limits) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\np99 budget\tdistance\tif a write took one more round trip")
	for _, l := range r.Limits {
		fmt.Fprintf(table, "%s\t%s\t%s\n", formatUS(l.BudgetUS), limitKm(l.Km, l.How), limitKm(l.KmTwo, l.HowTwo))
	}
	table.Flush()
}

// integrity says what was checked.
func (r *Report) integrity() string {
	text := fmt.Sprintf("The replicas were byte for byte identical after each use in %d trials (%s compared)", len(r.trials), formatBytes(r.BytesCompared))
	if r.BlocksVerified > 0 {
		text += fmt.Sprintf("; %d blocks were read back and held what was written last", r.BlocksVerified)
	}
	if n := r.rttRepeated(); n > 0 {
		text += fmt.Sprintf("; of the RTT measurements %d were off at first and taken again", n)
	}
	if r.TrialsLeftOut > 0 {
		text += fmt.Sprintf("; %d of %d trials are left out because their link was not as wanted", r.TrialsLeftOut, len(r.trials))
	}
	return text + "."
}

func (r *Report) rttRepeated() (n int) {
	for _, t := range r.trials {
		n += t.RTTRepeated
	}
	return n
}

// csvNumber leaves the field of an unbounded value empty.
func csvNumber(v float64) string {
	if finite(v) == nil {
		return ""
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func (r *Report) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write([]string{"km", "rtt_want_us", "rtt_got_us", "p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us", "max_us", "mean_us",
		"iops", "p50_ci95_low_us", "p50_ci95_high_us", "p99_ci95_low_us", "p99_ci95_high_us", "writes", "drops", "trials", "left_out", "fidelity"})
	for _, p := range r.Points {
		row := []string{formatKm(p.Km)}
		for _, v := range []float64{p.RTTWantUS, p.RTTGotUS, p.P50US, p.P90US, p.P99US, p.P999US, p.P9999US, p.MaxUS, p.MeanUS,
			p.IOPS, p.P50CI.Low, p.P50CI.High, p.P99CI.Low, p.P99CI.High} {
			row = append(row, csvNumber(v))
		}
		row = append(row, strconv.FormatInt(p.Writes, 10), strconv.FormatUint(p.Drops, 10),
			strconv.Itoa(p.Trials), strconv.Itoa(p.LeftOut), string(p.Fidelity))
		w.Write(row)
	}
	w.Flush()
	return b.Bytes(), w.Error()
}
