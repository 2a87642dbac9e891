package sweep

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteText prints for people: with several targets first how they compare, then
// the tables of each, and at the end the answer.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, profile %s (%.4f us per km one way), link by %s\n",
		r.config.what(), r.config.profileName(), r.config.Profile.USPerKm(), r.Stand.Backend)
	if slow := r.Host.slow(); slow != "" {
		fmt.Fprintf(w, "All figures are from an %s.\n", slow)
	}
	fmt.Fprintln(w)
	if r.several() {
		r.writeComparison(w)
	}
	for _, t := range r.Targets {
		if r.several() {
			fmt.Fprintf(w, "\n%s\n", t.heading())
		}
		t.writeTables(w)
	}
	fmt.Fprintln(w)
	for _, answer := range r.answers() {
		fmt.Fprintln(w, answer)
	}
	if slow := r.Host.slow(); slow != "" {
		fmt.Fprintf(w, "(%s)\n", slow)
	}
	return nil
}

// heading names the target and what of it was measured.
func (r *Result) heading() string {
	if r.Facts.Version == "" {
		return r.Target
	}
	return r.Target + ", " + r.Facts.Version
}

func (r *Result) writeTables(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "km\tRTT wanted\tgot\tp50 us\t± 95%%\tp99 us\tp99.9 us\tmax us\t%s\t%s\tlink\t\n", r.config.perSecond(), r.config.things())
	for _, p := range r.Points {
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.0f\t%s\t%v\t%v\t%.0f\t%.0f\t%d\t%s\t\n",
			formatKm(p.Km), p.RTTWantUS, p.RTTGotUS, p.P50US, p.P50CI.PlusMinus(), p.P99US, p.P999US, p.MaxUS, p.IOPS, p.Writes, p.Verdict())
	}
	table.Flush()
	r.writeProbes(w)
	r.writeLimits(w)
	r.writeSettings(w)
	fmt.Fprintf(w, "\n%s\n", r.integrity())
	for _, note := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", note)
	}
}

func (r *Result) writeSettings(w io.Writer) {
	if len(r.Facts.Settings) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nsetting\tvalue\twhy")
	for _, s := range r.Facts.Settings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, s.Value, s.Why)
	}
	table.Flush()
}

// Verdict is the label of a point: "ok", "ok, 1 of 3 left out", "drift".
func (p *Point) Verdict() string {
	if p.Fidelity == OK && p.LeftOut > 0 {
		return fmt.Sprintf("ok, %d of %d left out", p.LeftOut, p.LeftOut+p.Trials)
	}
	return string(p.Fidelity)
}

func (r *Result) writeProbes(w io.Writer) {
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

func (r *Result) writeLimits(w io.Writer) {
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
func (r *Result) integrity() string {
	text := fmt.Sprintf("There is one copy, so nothing to compare with, in %d trials", len(r.trials))
	if !r.Facts.OneCopy {
		text = fmt.Sprintf("The replicas were byte for byte identical after each use in %d trials (%s compared)", len(r.trials), formatBytes(r.BytesCompared))
	}
	switch {
	case r.BlocksVerified > 0 && r.config.Workload == Pgbench:
		text += fmt.Sprintf("; %d commits were all there after a stop without warning and a recovery, and the sums of accounts, tellers, branches and history agreed", r.BlocksVerified)
	case r.BlocksVerified > 0:
		text += fmt.Sprintf("; %d blocks were read back and held what was written last", r.BlocksVerified)
	}
	if n := r.rttRepeated(); n > 0 {
		text += fmt.Sprintf("; of the RTT measurements %d were off at first and taken again", n)
	}
	if r.TrialsLeftOut > 0 {
		text += fmt.Sprintf("; %d of %d trials are left out because %s was not as wanted", r.TrialsLeftOut, len(r.trials), r.atFault())
	}
	if r.BareRTTUS > 0 {
		text += fmt.Sprintf("; an RTT could be %.0f us + %.0f %% too long, the %.0f us being what the link takes without distance plus %.0f",
			r.BareRTTUS+micros(scheduling), 100*rttShare, r.BareRTTUS+micros(scheduling), micros(scheduling))
	}
	return text + "."
}

// atFault names what the trials were left out for.
func (r *Result) atFault() string {
	for _, t := range r.trials {
		if t.Fidelity == Degraded {
			return "their link, or their set of copies,"
		}
	}
	return "their link"
}

func (r *Result) rttRepeated() (n int) {
	for _, t := range r.trials {
		n += t.RTTRepeated
	}
	return n
}
