package sweep

import (
	"bytes"
	"encoding/csv"
	"strconv"
)

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
		"iops", "p50_ci95_low_us", "p50_ci95_high_us", "p99_ci95_low_us", "p99_ci95_high_us", "writes", "drops", "trials", "left_out", "fidelity", "target", "overhead_us"})
	for _, t := range r.Targets {
		for _, p := range t.Points {
			w.Write(t.row(p))
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// row has a field for each column.
func (r *Result) row(p *Point) []string {
	row := []string{formatKm(p.Km)}
	for _, v := range []float64{p.RTTWantUS, p.RTTGotUS, p.P50US, p.P90US, float64(p.P99US), float64(p.P999US), float64(p.P9999US), p.MaxUS, p.MeanUS,
		p.IOPS, p.P50CI.Low, p.P50CI.High, p.P99CI.Low, p.P99CI.High} {
		row = append(row, csvNumber(v))
	}
	return append(row, strconv.FormatInt(p.Writes, 10), strconv.FormatUint(p.Drops, 10),
		strconv.Itoa(p.Trials), strconv.Itoa(p.LeftOut), string(p.Fidelity), r.Target, csvNumber(p.OverheadUS))
}
