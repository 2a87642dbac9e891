package check

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

// roundTrips measures the machine's own round trip and that of each distance, in
// turns: what else a machine does comes and goes, and must not be at one distance
// only. Each turn calibrates the link anew.
func (c *checker) roundTrips(ctx context.Context) error {
	bare, points := trips{}, make([]trips, len(c.conf.KM))
	for range c.n.turns {
		if err := c.turn(ctx, &bare, wanem.Link{}); err != nil {
			return err
		}
		for i, distance := range c.conf.KM {
			if err := c.turn(ctx, &points[i], km(distance)); err != nil {
				return err
			}
		}
	}
	c.baseline = bare.quantile(0.5)
	c.report.BaselineUS = micros(c.baseline)
	c.judge(baselineRow(c.baseline, bare.quantile(0.99), bare.tail()))
	for i, distance := range c.conf.KM {
		r := c.delayRow(fmt.Sprintf("round trip, %g km", distance), km(distance).RTT(), points[i].quantile(0.5))
		r.ReadBack, r.Note = points[i].held, r.Note+", "+points[i].tail()
		if distance > 0 { // without a distance it is the baseline
			c.report.WorstUS = max(c.report.WorstUS, math.Abs(r.Measured-r.Asked))
		}
		c.judge(r)
	}
	return nil
}

// baselineRow is about the machine, which fails if it is too slow to prove anything.
func baselineRow(baseline, p99 time.Duration, note string) Row {
	r := Row{Attribute: "round trip, no link", Unit: "us", Measured: micros(baseline), High: micros(MostBaseline), Verdict: Baseline, Note: note}
	if baseline > MostBaseline || p99 > MostBaselineTail {
		r.Verdict = Failed
		r.Note += ": this machine is too slow or too busy to prove a delay on (try scripts/vm.sh run --clock instructions)"
	}
	return r
}

// trips are the round trips of one distance, of all turns.
type trips struct {
	all  []time.Duration
	held *float64 // both ways, in us, as the last turn left it
}

func (c *checker) turn(ctx context.Context, t *trips, link wanem.Link) error {
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	got, err := c.sites.MeasureRTT(ctx, sites.A, sites.B, c.n.echoes)
	if err != nil {
		return err
	}
	dropped, err := c.drops()
	if err != nil {
		return err
	}
	c.lost += max(got.Lost, int(dropped))
	c.sent += c.n.echoes
	t.all = append(t.all, got.All...)
	// Both directions were set alike, but for half a nanosecond.
	t.held, err = c.held(func(q netem.Config) float64 { return 2 * micros(q.Delay) })
	return err
}

func (t *trips) quantile(q float64) time.Duration {
	slices.Sort(t.all)
	return t.all[min(int(q*float64(len(t.all))), len(t.all)-1)]
}

func (t *trips) tail() string {
	return fmt.Sprintf("min %.1f, p99 %.1f", micros(t.quantile(0)), micros(t.quantile(0.99)))
}

// delayRow is a median delay that may be off by Precision and the baseline.
func (c *checker) delayRow(attribute string, asked, measured time.Duration) Row {
	b := around(micros(asked), micros(Precision+c.baseline))
	return Row{Attribute: attribute, Unit: "us", Asked: micros(asked), Measured: micros(measured),
		Low: max(0, b.low), High: b.high, Note: fmt.Sprintf("off by %+.1f", micros(measured-asked))}
}

// oneWays measures each direction by itself, in turns, of a link that is longer on
// the way there.
func (c *checker) oneWays(ctx context.Context) error {
	link := km(500)
	link.Asymmetry = 0.5
	there, back := link.Delays()
	ways := []struct {
		name     string
		from, to sites.Site
		want     time.Duration
		all      outcome
	}{{"one way, there", sites.A, sites.B, there, outcome{}}, {"one way, back", sites.B, sites.A, back, outcome{}}}
	for range c.n.turns {
		if err := c.setLink(ctx, link); err != nil {
			return err
		}
		for i := range ways {
			w := &ways[i]
			o, err := c.measure(ctx, stream{from: w.from, to: w.to, count: c.n.echoes, size: 64, interval: time.Millisecond, wait: time.Second}, false)
			if err != nil {
				return err
			}
			w.all.arrivals = append(w.all.arrivals, o.arrivals...)
		}
	}
	for _, w := range ways {
		r := c.delayRow(w.name, w.want, seconds(median(w.all.delays())))
		if c.netem() {
			q, err := c.sites.Qdisc(w.from, w.to)
			if err != nil {
				return err
			}
			held := micros(q.Config.Delay)
			r.ReadBack = &held
		}
		c.judge(r)
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// jitter measures middle, spread and shape: of a jitter that is wide beside what a
// busy machine does, where packets may overtake, so that each one's delay is its
// own; with the relay, of probes so far apart that none has to wait for another.
func (c *checker) jitter(ctx context.Context) error {
	if !c.netem() {
		return c.relayJitter(ctx)
	}
	// A power of two: others the kernel draws unevenly, see package netem.
	conf := netem.Config{Delay: 150 * time.Millisecond, Jitter: 1 << 27}
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.spread, size: 64, interval: time.Millisecond, wait: time.Second}
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	deviation := conf.Jitter.Seconds() / math.Sqrt(3)
	held, err := c.held(func(q netem.Config) float64 { return millis(q.Jitter) / math.Sqrt(3) })
	c.judgeJitter(o, uniform, conf.Delay, deviation, held)
	return err
}

func (c *checker) relayJitter(ctx context.Context) error {
	link := km(500)
	link.Jitter = 500 * time.Microsecond
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.linkSpread, size: 64, interval: link.RTT(), wait: time.Second}
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	c.judgeJitter(o, normal, link.RTT()/2, link.Jitter.Seconds(), nil)
	return nil
}

// judgeJitter takes the shape around the middle that was measured: where that is,
// is a figure of its own.
func (c *checker) judgeJitter(o outcome, d distribution, delay time.Duration, deviation float64, held *float64) {
	got, n := o.delays(), len(o.arrivals)
	middle := around(delay.Seconds(), (Precision+c.baseline).Seconds()+medianError(n)*deviation)
	c.judge(Row{Attribute: "jitter, median", Unit: "ms", Asked: millis(delay), Measured: median(got) * 1e3, Low: middle.low * 1e3, High: middle.high * 1e3})
	spread := around(deviation, spreadError(n)*deviation)
	c.judge(Row{Attribute: "jitter, deviation", Unit: "ms", Asked: deviation * 1e3, ReadBack: held,
		Measured: quartiles(got) / d.quartiles * 1e3, Low: spread.low * 1e3, High: spread.high * 1e3,
		Note: fmt.Sprintf("by the quartiles of %d", n)})
	c.judge(Row{Attribute: "jitter, off " + d.name, Unit: "%", Measured: 100 * kolmogorov(got, d, median(got), deviation),
		High: 100 * kolmogorovLimit(n), Note: "Kolmogorov-Smirnov"})
}

// order: a link with jitter, as sweeps have it, must not let packets overtake:
// TCP would take that for loss.
func (c *checker) order(ctx context.Context) error {
	link := km(500)
	link.Jitter = 500 * time.Microsecond
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.spread, size: 64, interval: 100 * time.Microsecond, wait: time.Second}
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	c.judge(Row{Attribute: "overtaking under jitter", Unit: "packets", Measured: float64(o.overtakers()), Note: fmt.Sprintf("of %d", o.sent)})
	return nil
}
