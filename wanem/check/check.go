package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

// Precision is how far a median delay may be off, beyond the round trip that the
// machine has at no distance.
const Precision = 20 * time.Microsecond

// MostBaseline is the longest round trip without a link of a machine that anything
// can be proved on: what it has is allowed to every delay.
const MostBaseline = 250 * time.Microsecond

// MostBaselineTail is the longest that 99 of 100 round trips without a link may take:
// a machine that pauses longer keeps packets waiting, whatever the link is.
const MostBaselineTail = 2 * time.Millisecond

// Config says what to prove.
type Config struct {
	Backend sites.Backend // empty is sites.Netem
	KM      []float64     // distances of the round trips; none is 0, 50, 100, 200, 500 and 1000
	Quick   bool          // fewer probes, so wider bands
	Begin   func()        // told when the sites are there; may be nil
	Each    func(Row)     // told of each figure when it is there; may be nil
}

// Verdict says what a figure proves.
type Verdict string

// The verdicts. A Baseline is a fact about the machine, unless it is so long that it
// failed; only Failed is bad.
const (
	Passed   Verdict = "pass"
	Failed   Verdict = "FAIL"
	Skipped  Verdict = "skipped"
	Baseline Verdict = "baseline"
)

// Row is one figure, in Unit.
type Row struct {
	Attribute string   `json:"attribute"`
	Unit      string   `json:"unit,omitempty"`
	Asked     float64  `json:"asked"`
	ReadBack  *float64 `json:"read_back,omitempty"` // what the kernel holds; a calibrated delay is less than was asked
	Measured  float64  `json:"measured"`
	Low       float64  `json:"low"` // from here to High is allowed
	High      float64  `json:"high"`
	Verdict   Verdict  `json:"verdict"`
	Note      string   `json:"note,omitempty"`
}

// Report is all that was measured.
type Report struct {
	Backend sites.Backend `json:"backend"`
	Why     string        `json:"why"`
	// BaselineUS is the median round trip at no distance, in microseconds.
	BaselineUS float64 `json:"baseline_us"`
	// WorstUS is the largest error of a median round trip, at any distance above 0.
	WorstUS float64 `json:"worst_median_error_us"`
	Rows    []Row   `json:"rows"`
	Failed  int     `json:"failed"`
}

// counts are how many probes each figure takes; turns of echoes for round trips.
type counts struct{ turns, echoes, spread, linkSpread, draws, backlog int }

var (
	full  = counts{turns: 20, echoes: 20, spread: 5000, linkSpread: 1000, draws: 20000, backlog: 1000}
	quick = counts{turns: 8, echoes: 15, spread: 1500, linkSpread: 200, draws: 5000, backlog: 300}
)

// checker is a run in progress.
type checker struct {
	conf     Config
	n        counts
	sites    *sites.Sites
	report   Report
	baseline time.Duration
	lost     int // that should not have been
	sent     int // that should not have been lost
}

// Run makes two sites, measures, and takes them away. The error is about the
// measuring; what was found is in the report, which holds what was measured before
// an error too. It needs what package sites needs.
func Run(ctx context.Context, conf Config) (_ Report, err error) {
	if conf.Backend == "" {
		conf.Backend = sites.Netem
	}
	if len(conf.KM) == 0 {
		conf.KM = []float64{0, 50, 100, 200, 500, 1000}
	}
	all, err := sites.Open(ctx, sites.Config{Backend: conf.Backend})
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	c := &checker{conf: conf, n: full, sites: all, report: Report{Backend: all.Backend(), Why: all.Why(), Rows: []Row{}}}
	if conf.Quick {
		c.n = quick
	}
	if conf.Begin != nil {
		conf.Begin()
	}
	for _, step := range []func(context.Context) error{
		c.roundTrips, c.oneWays, c.jitter, c.order, c.loss, c.bursts, c.reorder, c.gap, c.duplicate, c.corrupt, c.rate, c.limit,
	} {
		if err := step(ctx); err != nil {
			return c.report, fmt.Errorf("measure the link: %w", err)
		}
	}
	c.judge(Row{Attribute: "lost beyond that", Unit: "packets", Measured: float64(c.lost), Note: fmt.Sprintf("of %d", c.sent)})
	return c.report, nil
}

// judge gives a figure its verdict, unless it has one, and keeps it.
func (c *checker) judge(r Row) {
	if r.Verdict == "" {
		r.Verdict = Failed // NaN passes nowhere
		if (band{r.Low, r.High}).holds(r.Measured) {
			r.Verdict = Passed
		}
	}
	if r.Verdict == Failed {
		c.report.Failed++
	}
	if math.IsNaN(r.Measured) { // JSON has none
		r.Measured, r.Note = 0, "nothing arrived"
	}
	c.report.Rows = append(c.report.Rows, r)
	if c.conf.Each != nil {
		c.conf.Each(r)
	}
}

// skip says what this backend can't do.
func (c *checker) skip(attribute string) {
	c.judge(Row{Attribute: attribute, Verdict: Skipped, Note: "backend " + string(c.sites.Backend()) + " can't"})
}

func (c *checker) netem() bool { return c.sites.Backend() == sites.Netem }

// held is what the kernel holds from a to b, in the unit that see gives it; nil
// where there is no qdisc.
func (c *checker) held(see func(netem.Config) float64) (*float64, error) {
	if !c.netem() {
		return nil, nil
	}
	q, err := c.sites.Qdisc(sites.A, sites.B)
	if err != nil {
		return nil, err
	}
	x := see(q.Config)
	return &x, nil
}

// measure sends a stream over the link as it is and counts what should not have
// been lost: with lossy, what the qdisc did not say that it dropped.
func (c *checker) measure(ctx context.Context, s stream, lossy bool) (outcome, error) {
	before, err := c.drops()
	if err != nil {
		return outcome{}, err
	}
	o, err := s.run(ctx, c.sites)
	if err != nil {
		return o, err
	}
	after, err := c.drops()
	if err != nil {
		return o, err
	}
	dropped := int(after - before)
	switch {
	case !lossy:
		c.lost += max(o.missing()-o.broken, dropped)
	case c.netem():
		c.lost += max(0, o.missing()-dropped)
	}
	c.sent += o.sent
	return o, nil
}

func (c *checker) drops() (uint64, error) { return c.sites.Drops(sites.A, sites.B) }

// setLink is a link between a and b.
func (c *checker) setLink(ctx context.Context, l wanem.Link) error {
	return c.sites.SetLink(ctx, sites.A, sites.B, l)
}

// impair is what only netem does, from a to b, over a link of no distance.
func (c *checker) impair(ctx context.Context, conf netem.Config) error {
	if err := c.setLink(ctx, wanem.Link{}); err != nil {
		return err
	}
	return c.sites.Impair(ctx, sites.A, sites.B, conf)
}

func km(n float64) wanem.Link { return wanem.Link{Distance: wanem.Distance(n) * wanem.Km} }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
