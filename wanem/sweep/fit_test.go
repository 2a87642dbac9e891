package sweep

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func near(a, b, by float64) bool { return math.Abs(a-b) <= by }

func TestTheilSenByHand(t *testing.T) {
	// Slopes of the pairs: 2, 2, 2, 10/3, 4, 6: the median is (2+10/3)/2.
	x := []float64{0, 1, 2, 3}
	l := theilSen(x, x, []float64{1, 3, 5, 11})
	if !near(l.slope, 8.0/3, 1e-12) {
		t.Errorf("slope %v, want 2.667", l.slope)
	}
	// What is left: 1, 1/3, -1/3, 3.
	if !near(l.intercept, 2.0/3, 1e-12) {
		t.Errorf("intercept %v, want 0.667", l.intercept)
	}
}

func TestTheilSenRecoversOneRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var covered int
	const runs = 400
	for range runs {
		var group, x, y []float64
		for _, rtt := range []float64{0, 490, 979, 1959, 4897} {
			for range 3 {
				group = append(group, rtt)
				x = append(x, rtt+10*random.NormFloat64())
				y = append(y, 1.00*x[len(x)-1]+120+15*random.NormFloat64())
			}
		}
		outlier := random.IntN(len(x))
		y[outlier] += 4000 // someone else's job ran
		l := theilSen(group, x, y)
		if !near(l.slope, 1, 0.03) || !near(l.intercept, 120, 40) {
			t.Errorf("slope %v, intercept %v; want 1.00 and 120 in spite of the outlier", l.slope, l.intercept)
		}
		if l.slopeCI.Low <= 1 && 1 <= l.slopeCI.High {
			covered++
		}
	}
	// One outlier in fifteen makes the interval wider than it must be.
	if covered < runs*93/100 {
		t.Errorf("the 95%% interval held the truth %d times of %d", covered, runs)
	}
}

func TestSenIntervalNeedsPoints(t *testing.T) {
	x := []float64{0, 1}
	l := theilSen(x, x, x)
	if finite(l.slopeCI.Low) != nil || finite(l.slopeCI.High) != nil {
		t.Errorf("two points bound the slope to %v", l.slopeCI)
	}
}

// Of two distances, four repeats each bound the slope by the extremes of its sixteen
// pairs; three cannot: all nine slopes hold the truth in nine of ten cases only.
func TestSenIntervalOfTwoDistances(t *testing.T) {
	for repeats, bounded := range map[int]bool{3: false, 4: true} {
		var group, x, y []float64
		for i := range repeats {
			for _, km := range []float64{0, 1} {
				group, x, y = append(group, km), append(x, km), append(y, km+0.01*float64(i)*(1-km))
			}
		}
		ci := theilSen(group, x, y).slopeCI
		if ci.bounded() != bounded || bounded && (!near(ci.Low, 0.97, 1e-9) || !near(ci.High, 1, 1e-9)) {
			t.Errorf("%d repeats: %v", repeats, ci)
		}
	}
}

func TestMeanInterval(t *testing.T) {
	// t(0.975, 2) = 4.3027; the standard error of 1, 2, 3 is 1/sqrt(3).
	mean, ci := meanInterval([]float64{1, 2, 3})
	if mean != 2 || !near(ci.half(), 4.30265/math.Sqrt(3), 1e-4) || !near(ci.Low, 2-ci.half(), 1e-12) {
		t.Errorf("mean %v, interval %v", mean, ci)
	}
	if _, ci := meanInterval([]float64{1}); finite(ci.Low) != nil {
		t.Errorf("one value bounds its mean to %v", ci)
	}
}

func TestCrossing(t *testing.T) {
	km := []float64{0, 100, 200}
	for _, tc := range []struct {
		name  string
		y     []float64
		level float64
		km    float64
		how   string
	}{
		{"between points", []float64{100, 1100, 2100}, 1600, 150, Interpolated},
		{"on a point", []float64{100, 1100, 2100}, 1100, 100, Interpolated},
		{"the first crossing of two", []float64{100, 1100, 900}, 1000, 90, Interpolated},
		{"never below", []float64{100, 1100, 2100}, 50, 0, Never},
		{"beyond", []float64{100, 1100, 2100}, 3100, 300, Extrapolated},
		{"beyond, but it does not grow", []float64{100, 90, 80}, 3100, 0, Unknown},
	} {
		at, how := crossing(km, tc.y, tc.level)
		if !near(at, tc.km, 1e-9) || how != tc.how {
			t.Errorf("%s: %v km, %s; want %v, %s", tc.name, at, how, tc.km, tc.how)
		}
	}
	if _, how := crossing(nil, nil, 1); how != Unknown {
		t.Errorf("no points: %s", how)
	}
}

func TestNotesNameAFallingP99(t *testing.T) {
	points := []*Point{{Km: 0, P99US: 200, Fidelity: OK}, {Km: 50, P99US: 2500, Fidelity: OK}, {Km: 75, P99US: 1, Fidelity: Off}, {Km: 100, P99US: 1500, Fidelity: OK}}
	got := notes(points, true)
	if len(got) != 1 || !strings.Contains(got[0], "p99 at 50 km (2500 us) is above that at 100 km (1500 us)") {
		t.Errorf("notes %q", got)
	}
}

func TestHistogramSurvivesItsFile(t *testing.T) {
	m := measured{latency: newHistogram(), elapsed: 1e9}
	for i := range 10_000 {
		_ = m.latency.RecordValue(int64(i+1) * 1000)
	}
	var saved Trial
	if err := saved.setLatency(m); err != nil {
		t.Fatal(err)
	}
	back := Trial{Histogram: saved.Histogram}
	if err := back.decodeLatency(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []float64{50, 99, 99.99, 100} {
		if a, b := percentile(saved.latency, p), percentile(back.latency, p); a != b {
			t.Errorf("p%v = %v before, %v after", p, a, b)
		}
	}
	// Three significant figures: 1..10000 us.
	if p50 := saved.P50US; !near(p50, 5000, 5) {
		t.Errorf("p50 = %v, want 5000", p50)
	}
	back.Histogram = "AAAA"
	if err := back.decodeLatency(); err == nil {
		t.Error("a broken histogram was read")
	}
}

func TestNiceTicks(t *testing.T) {
	for v, want := range map[float64]float64{0.9: 1, 1: 1, 1.1: 2, 3: 5, 7: 10, 100: 100, 130: 200} {
		if got := niceStep(v); !near(got, want, 1e-9) {
			t.Errorf("niceStep(%v) = %v, want %v", v, got, want)
		}
	}
	var values []float64
	for _, tick := range ticks(500, plain) {
		values = append(values, tick.Value)
	}
	if !slices.Equal(values, []float64{0, 100, 200, 300, 400, 500}) {
		t.Errorf("ticks %v", values)
	}
}
