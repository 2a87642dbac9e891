package drill

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Row sums up the rounds of one kind. Stalls are in milliseconds.
type Row struct {
	Kind         Kind    `json:"kind"`
	Rounds       int     `json:"rounds"`
	Lost         int64   `json:"lost"`          // blocks whose acknowledged write is gone
	Differing    int64   `json:"differing"`     // blocks that are not the same in all copies
	TwoPrimaries int64   `json:"two_primaries"` // blocks of which a read showed two primaries
	StallP50     float64 `json:"stall_ms_p50"`
	StallP99     float64 `json:"stall_ms_p99"` // nearest rank: the longest, of fewer than 100 rounds
	StallMax     float64 `json:"stall_ms_max"`
}

// Rows sums up, in the order of [Kinds]; kinds without a round are left out.
func Rows(results []Result) []Row {
	var rows []Row
	for _, kind := range Kinds {
		some := slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Kind != kind })
		if len(some) > 0 {
			rows = append(rows, sum(kind, some))
		}
	}
	return rows
}

func sum(kind Kind, results []Result) Row {
	row := Row{Kind: kind, Rounds: len(results)}
	var stalls []time.Duration
	for _, r := range results {
		row.Lost += r.Lost
		row.Differing += r.Differing
		row.TwoPrimaries += r.TwoPrimaries
		stalls = append(stalls, r.Stall)
	}
	slices.Sort(stalls)
	row.StallP50, row.StallP99, row.StallMax = rank(stalls, 50), rank(stalls, 99), rank(stalls, 100)
	return row
}

// rank is a percentile by nearest rank, in milliseconds rounded to tenths.
func rank(sorted []time.Duration, percent int) float64 {
	d := sorted[(len(sorted)*percent+99)/100-1]
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// WriteTable is for people. Its last row is of all faults: of every kind but a
// handover, which is not one.
func WriteTable(out io.Writer, results []Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KIND\tROUNDS\tLOST\tDIFFERING\tTWO PRIMARIES\tSTALL MS P50\tP99\tMAX\t")
	rows := Rows(results)
	faults := slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Kind == Handover })
	if len(rows) > 1 && len(faults) > 0 {
		rows = append(rows, sum("all faults", faults))
	}
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\t\n",
			r.Kind, r.Rounds, r.Lost, r.Differing, r.TwoPrimaries, r.StallP50, r.StallP99, r.StallMax)
	}
	return w.Flush()
}
