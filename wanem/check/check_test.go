package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
}

// TestKernelNetem proves what a netem link does with packets on the machine that it
// runs on. How exact it is in time is a machine's business that has other things to
// do: that is proved where nothing else counts, by the lab's part "netem"
// (scripts/lab/ci.sh).
func TestKernelNetem(t *testing.T) {
	needRoot(t)
	if err := netem.Available(); err != nil {
		t.Skipf("needs netem: %v", err)
	}
	report := prove(t, Config{Quick: true, KM: []float64{100}})
	for _, r := range report.Rows {
		if r.Verdict == Skipped || r.Verdict == Failed && !timed(r) {
			t.Errorf("%s: %s", r.Attribute, r.Verdict)
		}
	}
}

// timed says whether a figure depends on when packets came.
func timed(r Row) bool {
	return slices.ContainsFunc([]string{"round trip", "one way", "jitter", "rate"}, func(prefix string) bool {
		return strings.HasPrefix(r.Attribute, prefix)
	})
}

// TestRelay runs the same over the relay, which is everywhere. How long it takes is
// the machine's business, and it says itself that it is not as exact as netem; what
// it loses, orders and lets through is not.
func TestRelay(t *testing.T) {
	needRoot(t)
	report := prove(t, Config{Backend: sites.Tun, Quick: true, KM: []float64{100}})
	verdicts := map[string]Verdict{}
	for _, r := range report.Rows {
		verdicts[r.Attribute] = r.Verdict
	}
	for attribute, want := range map[string]Verdict{
		"round trip, no link": Baseline, "overtaking under jitter": Passed, "loss": Passed,
		"lost beyond that": Passed, "loss in bursts": Skipped, "corrupt": Skipped, "limit": Skipped,
	} {
		if verdicts[attribute] != want {
			t.Errorf("%s: %q, want %q", attribute, verdicts[attribute], want)
		}
	}
}

// prove is run, and where a figure failed that is left to chance, which does that to one in
// 16,000 that are right, what another run says of it.
func prove(t *testing.T, conf Config) Report {
	t.Helper()
	ofChance := func(r Row) bool {
		return slices.Contains([]string{"loss", "loss in bursts", "length of a burst", "reorder", "reorder with a gap", "duplicate", "corrupt"}, r.Attribute)
	}
	report := run(t, conf)
	if !slices.ContainsFunc(report.Rows, func(r Row) bool { return r.Verdict == Failed && ofChance(r) }) {
		return report
	}
	for i, again := range run(t, conf).Rows {
		if r := &report.Rows[i]; r.Verdict == Failed && ofChance(*r) {
			*r = again
		}
	}
	return report
}

// run prints the table, and checks that it can be had as JSON.
func run(t *testing.T, conf Config) Report {
	var table bytes.Buffer
	conf.Each = func(r Row) {
		if err := r.Write(&table); err != nil {
			t.Error(err)
		}
	}
	report, err := Run(t.Context(), conf)
	t.Logf("\n%s", &table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
	return report
}

// TestWhatIsLostUnaskedIsCounted: a link that loses without anybody's having asked
// for it must not pass.
func TestWhatIsLostUnaskedIsCounted(t *testing.T) {
	c := newChecker(t)
	link := km(100)
	link.Loss = 0.5
	if err := c.setLink(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	s := stream{from: sites.A, to: sites.B, count: 200, size: 64, wait: 200 * time.Millisecond}
	o, err := c.measure(t.Context(), s, false)
	if err != nil {
		t.Fatal(err)
	}
	if o.missing() == 0 || c.lost < o.missing() || c.sent != 200 {
		t.Errorf("%d of %d missing, %d counted as lost", o.missing(), c.sent, c.lost)
	}
}

func newChecker(t *testing.T) *checker {
	needRoot(t)
	all, err := sites.Open(t.Context(), sites.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := all.Close(); err != nil {
			t.Error(err)
		}
	})
	return &checker{n: quick, sites: all}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	c := newChecker(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	_, err := stream{from: sites.A, to: sites.B, count: 1000, size: 64, interval: time.Second, wait: time.Hour}.run(ctx, c.sites)
	if !errors.Is(err, context.Canceled) || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %v, want an end with its context", err, time.Since(begin))
	}
}

func TestUnavailableNetemSaysSo(t *testing.T) {
	needRoot(t)
	if netem.Available() == nil {
		t.Skip("this kernel has netem")
	}
	_, err := Run(t.Context(), Config{})
	if !errors.Is(err, netem.ErrUnavailable) || !strings.Contains(err.Error(), "modprobe") {
		t.Errorf("Run without sch_netem: %v", err)
	}
}
