package sweep

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/wanem"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// threeTargets take one round trip, two, and none.
func threeTargets() (one, two, local *fakeTarget) {
	one, two, local = newFakeTarget(), newFakeTarget(), newFakeTarget()
	one.name, two.name, local.name = "one", "two", "local"
	two.trips, two.overhead = 2, 400*time.Microsecond
	local.oneCopy, local.trips = true, 0
	return one, two, local
}

// shortConfig leaves the single writes out.
func shortConfig(t *testing.T) Config {
	t.Helper()
	c := testConfig(t.TempDir())
	c.Idle = 0
	return c
}

func sweepOfThree(t *testing.T) (*Report, Config) {
	t.Helper()
	c := tailConfig(t.TempDir())
	c.Idle = 0
	var progress bytes.Buffer
	c.Progress = &progress
	one, two, local := threeTargets()
	r, err := inBubble(t, c, one, two, local)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(progress.String(), " two "); n != 12 {
		t.Errorf("%d lines of progress name target two, want 12:\n%s", n, &progress)
	}
	return r, c
}

func TestTargetsAreCompared(t *testing.T) {
	r, c := sweepOfThree(t)
	for i, want := range []float64{1, 2} {
		if got := *r.Targets[i].RoundTrips; math.Abs(got-want) > 0.005 {
			t.Errorf("%s: %v round trips, want %v", r.Targets[i].Target, got, want)
		}
	}
	local := r.Targets[2]
	if local.RoundTrips != nil || local.ReplicasIdentical || local.BytesCompared != 0 || !r.ReplicasIdentical {
		t.Errorf("local: %v round trips, identical %v, %d bytes compared; all: %v", local.RoundTrips, local.ReplicasIdentical, local.BytesCompared, r.ReplicasIdentical)
	}
	checkCSV(t, c.Out)
	checkJSON(t, c.Out)
	checkPicture(t, c.Out)
	r.Host = Host{Emulated: true}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.txt", text.Bytes())
	page, err := r.html()
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("<svg ")); n != 10 {
		t.Errorf("%d figures, want one of all targets and 3 of each", n)
	}
	for _, want := range []string{"two: A 4 KiB write at queue depth 1 takes 2.00 round trips", "its guide advises it", "about 17 times slower", "Targets compared"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as in %s (go test -rewrite makes it so):\n%s", path, got)
	}
}

func checkCSV(t *testing.T, out string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, "points.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 13 {
		t.Fatalf("points.csv: %d rows, error %v; want 13", len(rows), err)
	}
	column := slices.Index(rows[0], "target")
	if column < 0 || rows[1][column] != "one" || rows[5][column] != "two" || rows[12][column] != "local" {
		t.Errorf("points.csv: %v", rows)
	}
}

func checkJSON(t *testing.T, out string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Targets []struct {
			Target     string
			RoundTrips *float64    `json:"round_trips_per_write"`
			CI         []*float64  `json:"round_trips_ci95"`
			Facts      TargetFacts `json:"facts"`
			Points     []struct {
				Overhead *float64 `json:"overhead_us"`
			}
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Targets) != 3 || report.Targets[0].RoundTrips == nil || len(report.Targets[1].CI) != 2 || report.Targets[2].RoundTrips != nil {
		t.Fatalf("report.json: %+v", report)
	}
	two := report.Targets[1]
	// Two round trips over one RTT: at 100 km the second one and 414 us are overhead.
	if len(two.Points) != 4 || !near(*two.Points[2].Overhead, 979+414, 10) || two.Facts.Settings[0].Why == "" {
		t.Errorf("report.json: %+v", two)
	}
}

func checkPicture(t *testing.T, out string) {
	t.Helper()
	svg, err := os.ReadFile(filepath.Join(out, "latency.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg ", "stroke:#b8480f", ">two</text>", ">1 RTT</text>"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("latency.svg lacks %q", want)
		}
	}
	if err := xml.Unmarshal(svg, new(struct{})); err != nil || bytes.Contains(svg, []byte("var(")) {
		t.Errorf("latency.svg: error %v, or it needs a style sheet", err)
	}
}

func TestTargetsAreOpenedInTurn(t *testing.T) {
	one, two, _ := threeTargets()
	var order []string
	for _, target := range []*fakeTarget{one, two} {
		target.setLink = func() error { order = append(order, target.name); return nil }
	}
	c := shortConfig(t)
	if _, err := inBubble(t, c, one, two); err != nil {
		t.Fatal(err)
	}
	turns := 0
	for i := range order[1:] {
		if order[i] != order[i+1] {
			turns++
		}
	}
	if turns < 6 {
		t.Errorf("the trials of two targets alternate %d times in %v", turns, order)
	}
}

func TestTargetNamedTwice(t *testing.T) {
	if _, err := inBubble(t, testConfig(t.TempDir()), newFakeTarget(), newFakeTarget()); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("error %v", err)
	}
	if _, err := inBubble(t, testConfig(t.TempDir())); err == nil || !strings.Contains(err.Error(), "at least one") {
		t.Errorf("no target: error %v", err)
	}
}

func TestTargetsAreResumed(t *testing.T) {
	c := shortConfig(t)
	one, two, _ := threeTargets()
	ctx, cancel := context.WithCancel(context.Background())
	trials := 0
	count := func() error {
		if trials++; trials == 12 { // two of them for bare links
			cancel()
			return ctx.Err()
		}
		return nil
	}
	one.setLink, two.setLink = count, count
	var err error
	synctest.Test(t, func(*testing.T) { _, err = Run(ctx, c, testFacts(), []Target{one, two}) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	c.Resume = true
	one, two, _ = threeTargets()
	if _, err := inBubble(t, c, one); err == nil || !strings.Contains(err.Error(), `target was "one,two", now "one"`) {
		t.Errorf("resumed without a target: error %v", err)
	}
	r, err := inBubble(t, c, one, two)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(one.links) + len(two.links); n != 24-9+2 {
		t.Errorf("%d links were set; 15 of 24 trials were left", n)
	}
	if got := *r.Targets[1].RoundTrips; math.Abs(got-2) > 0.005 {
		t.Errorf("two: %v round trips", got)
	}
}

// What has too few writes is not presented as a percentile.
func TestTooFewWritesForATail(t *testing.T) {
	c := shortConfig(t)
	r, err := inBubble(t, c, newFakeTarget())
	if err != nil {
		t.Fatal(err)
	}
	far, near := r.Points[3], r.Points[0]
	if far.P99US.Known() || far.P999US.Known() || !near.P99US.Known() || !near.P999US.Known() || near.P9999US.Known() {
		t.Errorf("500 km: %+v; 0 km: %+v", far, near)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.Contains(n, "no p99 at 500 km: it takes at least 100 writes a trial")
	}) {
		t.Errorf("notes %q", r.Notes)
	}
	if r.Limits[2].How == Interpolated {
		t.Errorf("10 ms: %+v", r.Limits[2])
	}
	page, err := r.html()
	if err != nil || bytes.Contains(page, []byte("NaN")) {
		t.Errorf("the page holds NaN (error %v)", err)
	}
	text, err := json.Marshal(far)
	if err != nil || !bytes.Contains(text, []byte(`"p99_us":null`)) {
		t.Errorf("JSON %s, error %v", text, err)
	}
	table, err := r.csv()
	if err != nil || bytes.Contains(table, []byte("NaN")) {
		t.Errorf("points.csv holds NaN (error %v)", err)
	}
}

func TestNoTailAtAnyDistance(t *testing.T) {
	points := []*Point{{Km: 0, P99US: unknown, Fidelity: OK}, {Km: 100, P99US: unknown, Fidelity: OK}}
	if l := newLimits([]time.Duration{time.Millisecond}, points); l[0].How != TooFew {
		t.Errorf("limit %+v", l[0])
	}
}

func TestWhatAnAnswerLacks(t *testing.T) {
	inf := math.Inf(1)
	for name, tc := range map[string]struct {
		fit Fit
		why string
	}{
		"nothing":      {Fit{OK: true, RoundTrips: 1, RoundTripsCI: Interval{0.9, 1.1}}, ""},
		"one distance": {Fit{}, "fewer than two distances"},
		"it falls":     {Fit{OK: true, RoundTrips: -0.2, RoundTripsCI: Interval{-0.3, 0.1}}, "does not grow"},
		"few trials":   {Fit{OK: true, RoundTrips: 1, RoundTripsCI: Interval{-inf, inf}, Trials: 6}, "6 trials are too few"},
		"a wide one":   {Fit{OK: true, RoundTrips: 1, RoundTripsCI: Interval{0.7, 1.3}}, "0.700 to 1.300, is too wide"},
	} {
		got := tc.fit.lacking()
		if (got == "") != (tc.why == "") || !strings.Contains(got, tc.why) {
			t.Errorf("%s: %q, want %q", name, got, tc.why)
		}
	}
}

func TestNoiseGivesNoAnswer(t *testing.T) {
	target := newFakeTarget()
	target.trips = 0 // as if nothing were sent
	r, err := inBubble(t, shortConfig(t), target)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Answer, "No answer: ") || r.Lacking == "" {
		t.Errorf("answer %q", r.Answer)
	}
}

// A slow machine's links may be off by what they take without distance, not by more.
func TestBareLinkIsAllowedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		bare, far time.Duration // that measured RTTs are too long
		want      Fidelity
	}{
		"as on the bare link": {400 * time.Microsecond, 400 * time.Microsecond, OK},
		"more than that":      {400 * time.Microsecond, 600 * time.Microsecond, Off},
		"too short":           {400 * time.Microsecond, -200 * time.Microsecond, Off},
	} {
		target := newFakeTarget()
		target.rttError = func(link wanem.Link) time.Duration {
			if link.Distance == 0 {
				return tc.bare
			}
			return tc.far
		}
		c := shortConfig(t)
		r, err := inBubble(t, c, target)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Points[2].Fidelity; got != tc.want || r.BareRTTUS != 400 || r.Points[0].Fidelity != OK {
			t.Errorf("%s: %v at 100 km, want %v; bare RTT %v us; %v at 0 km", name, got, tc.want, r.BareRTTUS, r.Points[0].Fidelity)
		}
		if !strings.Contains(r.integrity(), "an RTT could be 420 us + 2 % too long") {
			t.Errorf("%s: not said: %s", name, r.integrity())
		}
	}
}

func TestMachineTooSlowForAnyLink(t *testing.T) {
	target := newFakeTarget()
	target.rttError = func(wanem.Link) time.Duration { return 20 * time.Millisecond }
	if _, err := inBubble(t, testConfig(t.TempDir()), target); err == nil || !strings.Contains(err.Error(), "20ms without any distance") {
		t.Errorf("error %v", err)
	}
}

func TestEmulatedCPUIsTold(t *testing.T) {
	for model, want := range map[string]bool{"QEMU TCG CPU version 2.5+": true, "AMD EPYC 7B13": false, "QEMU Virtual CPU version 2.5+": false, "unknown": false} {
		if got := isEmulated(model); got != want {
			t.Errorf("%s: emulated %v", model, got)
		}
	}
}

func TestClockOfInstructionsIsTold(t *testing.T) {
	for line, want := range map[string]bool{"quiet lockstep.clock=instructions\n": true, "quiet lockstep.clock=host": false, "": false} {
		h := Host{Emulated: true, CountsInstructions: countsInstructions(line)}
		if h.CountsInstructions != want || strings.Contains(h.slow(), "17 times") == want || strings.Contains(h.slow(), "2 ns each") != want {
			t.Errorf("%q: %+v says %q", line, h, h.slow())
		}
	}
}

func TestValueInJSON(t *testing.T) {
	for _, v := range []Value{12.5, unknown} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back Value
		if err := json.Unmarshal(text, &back); err != nil || back.Known() != v.Known() || v.Known() && back != v {
			t.Errorf("%v became %s became %v (error %v)", v, text, back, err)
		}
	}
}
