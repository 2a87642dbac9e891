package check

import (
	"bytes"
	"math"
	"testing"
	"time"
)

// cameAs is an outcome of so many probes, of which these came, in this order.
func cameAs(sent int, numbers ...int) outcome {
	o := outcome{sent: sent}
	begin := time.Unix(1, 0)
	for i, n := range numbers {
		o.arrivals = append(o.arrivals, arrival{number: n, delay: time.Duration(n) * time.Millisecond, at: begin.Add(time.Duration(i) * time.Millisecond)})
	}
	return o
}

func TestOutcome(t *testing.T) {
	for _, tc := range []struct {
		name                                    string
		o                                       outcome
		missing, duplicates, bursts, overtakers int
	}{
		{"nothing sent", cameAs(0), 0, 0, 0, 0},
		{"all", cameAs(4, 0, 1, 2, 3), 0, 0, 0, 0},
		{"none", cameAs(4), 4, 0, 1, 0},
		{"bursts at both ends", cameAs(7, 2, 4), 5, 0, 3, 0},
		{"one overtakes two", cameAs(4, 2, 0, 1, 3), 0, 0, 0, 1},
		{"two overtake one", cameAs(3, 1, 2, 0), 0, 0, 0, 2},
		{"a late copy overtakes nobody", cameAs(3, 0, 1, 0, 2, 1), 0, 2, 0, 0},
		{"lost and twice", cameAs(3, 2, 2), 2, 1, 1, 0},
	} {
		if m, d, b, v := tc.o.missing(), tc.o.duplicates(), tc.o.bursts(), tc.o.overtakers(); m != tc.missing ||
			d != tc.duplicates || b != tc.bursts || v != tc.overtakers {
			t.Errorf("%s: missing %d, duplicates %d, bursts %d, overtakers %d; want %d, %d, %d, %d",
				tc.name, m, d, b, v, tc.missing, tc.duplicates, tc.bursts, tc.overtakers)
		}
	}
	o := cameAs(5, 4, 0, 1, 2, 3)
	if d := o.delays(); d[0] != 0 || d[4] != 0.004 {
		t.Errorf("delays %v are not sorted", d)
	}
	if n := o.quicker(2 * time.Millisecond); n != 2 {
		t.Errorf("%d took less than 2 ms, want 2", n)
	}
	if r := o.rate(125); math.Abs(r-1e6) > 1 {
		t.Errorf("125 bytes a millisecond are %v bits a second", r)
	}
	if r := cameAs(9, 0, 1, 2, 3, 4, 5, 6, 7, 8); math.Abs(r.rate(125)-1e6) > 1 {
		t.Errorf("125 bytes a millisecond are %v bits a second", r.rate(125))
	} else if r.arrivals[0].at = r.arrivals[0].at.Add(time.Second / 1000); math.Abs(r.rate(125)-1e6) > 1 {
		t.Errorf("with a late first one they are %v", r.rate(125))
	}
	burst := cameAs(5, 0, 1, 2, 3, 4) // all sent 0, 0, ... ms after the first
	if !burst.kept(1000) {
		t.Error("a burst left the line idle")
	}
	burst.arrivals[3].delay -= 4 * time.Millisecond // sent 4 ms later, when 3 were done
	if burst.kept(1000) || !burst.kept(500) {
		t.Error("a probe that came late to the line kept it busy, or one that came in time did not")
	}
	if !math.IsNaN(cameAs(5, 1).rate(1)) {
		t.Error("one arrival has a rate")
	}
}

func TestDatagramNoticesEveryBit(t *testing.T) {
	const size = 64
	b := make([]byte, size)
	sent := time.Unix(1790000000, 123456789)
	fill(b, 7, 9, sent)
	stream, number, at, intact := parse(b, size)
	if stream != 7 || number != 9 || !at.Equal(sent) || !intact {
		t.Fatalf("parse: %d, %d, %v, %v", stream, number, at, intact)
	}
	for bit := range size * 8 {
		damaged := bytes.Clone(b)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, _, _, intact := parse(damaged, size); intact {
			t.Errorf("bit %d: the damage was not noticed", bit)
		}
	}
	for _, other := range [][]byte{nil, b[:size-1], append(bytes.Clone(b), 0)} {
		if _, _, _, intact := parse(other, size); intact {
			t.Errorf("%d bytes passed for %d", len(other), size)
		}
	}
}

func TestJudge(t *testing.T) {
	var c checker
	for _, tc := range []struct {
		row  Row
		want Verdict
	}{
		{Row{Measured: 1, Low: 0, High: 1}, Passed},
		{Row{Measured: 1.01, Low: 0, High: 1}, Failed},
		{Row{Measured: -1, Low: 0, High: 1}, Failed},
		{Row{Measured: math.NaN(), Low: 0, High: 1}, Failed},
		{Row{Measured: 1, Low: 0, High: 1, Verdict: Failed}, Failed},
		{Row{Measured: 5, Verdict: Baseline}, Baseline},
	} {
		c.judge(tc.row)
		if got := c.report.Rows[len(c.report.Rows)-1]; got.Verdict != tc.want || math.IsNaN(got.Measured) {
			t.Errorf("%+v: %+v, want %s", tc.row, got, tc.want)
		}
	}
	if c.report.Failed != 4 {
		t.Errorf("%d failed, want 4", c.report.Failed)
	}
}

// TestSlowMachineProvesNothing: what the machine has without a link is allowed to
// every delay, so it must be little.
func TestSlowMachineProvesNothing(t *testing.T) {
	if r := baselineRow(MostBaseline, MostBaselineTail, ""); r.Verdict != Baseline {
		t.Errorf("%v: %s", MostBaseline, r.Verdict)
	}
	if r := baselineRow(MostBaseline+1, MostBaselineTail, ""); r.Verdict != Failed {
		t.Errorf("more than %v: %s", MostBaseline, r.Verdict)
	}
	if r := baselineRow(0, MostBaselineTail+1, ""); r.Verdict != Failed {
		t.Errorf("a p99 of more than %v: %s", MostBaselineTail, r.Verdict)
	}
}

func TestParseOverruns(t *testing.T) {
	const names = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\n"
	if n, err := parseOverruns("Ip: a\nIp: 1\n" + names + "Udp: 1 2 3 4 5 6\nUdpLite: RcvbufErrors\n"); n != 5 || err != nil {
		t.Errorf("%d, %v; want 5", n, err)
	}
	for _, text := range []string{"", names, "Udp: InDatagrams\nUdp: 1\n", names + "Udp: 1 2\n", names + "Udp: 1 2 3 4 x 6\n"} {
		if n, err := parseOverruns(text); err == nil {
			t.Errorf("%q: %d, want an error", text, n)
		}
	}
}
