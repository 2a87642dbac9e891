package check

import (
	"context"
	"fmt"
	"math"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

// roundTrips measures the machine's own round trip, then that of each distance.
func (c *checker) roundTrips(ctx context.Context) error {
	if err := c.setLink(ctx, wanem.Link{}); err != nil {
		return err
	}
	bare, err := c.sites.MeasureRTT(ctx, sites.A, sites.B, c.n.echoes)
	if err != nil {
		return err
	}
	c.baseline, c.report.BaselineUS = bare.Median, micros(bare.Median)
	c.judge(Row{Attribute: "round trip, no link", Unit: "us", Measured: micros(bare.Median), Verdict: Baseline, Note: tail(bare)})
	for _, distance := range c.conf.KM {
		if err := c.roundTrip(ctx, distance); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) roundTrip(ctx context.Context, distance float64) error {
	link := km(distance)
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
	r := c.delayRow(fmt.Sprintf("round trip, %g km", distance), link.RTT(), got.Median)
	r.Note += ", " + tail(got)
	// Both directions were set alike, but for half a nanosecond.
	if r.ReadBack, err = c.held(func(q netem.Config) float64 { return 2 * micros(q.Delay) }); err != nil {
		return err
	}
	c.report.WorstUS = max(c.report.WorstUS, math.Abs(r.Measured-r.Asked))
	c.judge(r)
	return nil
}

// delayRow is a median delay that may be off by Precision and the baseline.
func (c *checker) delayRow(attribute string, asked, measured time.Duration) Row {
	b := around(micros(asked), micros(Precision+c.baseline))
	return Row{Attribute: attribute, Unit: "us", Asked: micros(asked), Measured: micros(measured),
		Low: max(0, b.low), High: b.high, Note: fmt.Sprintf("off by %+.1f", micros(measured-asked))}
}

func tail(r sites.RTT) string {
	return fmt.Sprintf("min %.1f, p99 %.1f", micros(r.Min), micros(r.P99))
}

// oneWays measures each direction by itself, of a link that is longer on the way
// there.
func (c *checker) oneWays(ctx context.Context) error {
	link := km(500)
	link.Asymmetry = 0.5
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	there, back := link.Delays()
	for _, d := range []struct {
		name     string
		from, to sites.Site
		want     time.Duration
	}{{"one way, there", sites.A, sites.B, there}, {"one way, back", sites.B, sites.A, back}} {
		s := stream{from: d.from, to: d.to, count: c.n.oneWay, size: 64, interval: time.Millisecond, wait: time.Second}
		o, err := c.measure(ctx, s, false)
		if err != nil {
			return err
		}
		r := c.delayRow(d.name, d.want, seconds(median(o.delays())))
		if c.netem() {
			q, err := c.sites.Qdisc(d.from, d.to)
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

// jitter measures spread and shape: of a wide jitter where packets may overtake,
// so that each one's delay is its own; with the relay, of probes that are so far
// apart that none has to wait for another.
func (c *checker) jitter(ctx context.Context) error {
	if !c.netem() {
		return c.relayJitter(ctx)
	}
	conf := netem.Config{Delay: 25 * time.Millisecond}
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.oneWay, size: 64, interval: time.Millisecond, wait: time.Second}
	steady, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	place := median(steady.delays()) // with what this machine adds
	conf.Jitter = 20 * time.Millisecond
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	s.count = c.n.spread
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	deviation := conf.Jitter.Seconds() / math.Sqrt(3)
	held, err := c.held(func(q netem.Config) float64 { return millis(q.Jitter) / math.Sqrt(3) })
	c.judgeJitter(o, uniform, place, deviation, held)
	return err
}

func (c *checker) relayJitter(ctx context.Context) error {
	link := km(500)
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.oneWay, size: 64, interval: time.Millisecond, wait: time.Second}
	steady, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	link.Jitter = 500 * time.Microsecond
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	s.count, s.interval = c.n.linkSpread, link.RTT()
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	c.judgeJitter(o, normal, median(steady.delays()), link.Jitter.Seconds(), nil)
	return nil
}

func (c *checker) judgeJitter(o outcome, d distribution, place, deviation float64, held *float64) {
	got, n := o.delays(), len(o.arrivals)
	spread := around(deviation, spreadError(n)*deviation)
	c.judge(Row{Attribute: "jitter, deviation", Unit: "ms", Asked: deviation * 1e3, ReadBack: held,
		Measured: quartiles(got) / d.quartiles * 1e3, Low: spread.low * 1e3, High: spread.high * 1e3,
		Note: fmt.Sprintf("by the quartiles of %d", n)})
	c.judge(Row{Attribute: "jitter, off " + d.name, Unit: "%", Measured: 100 * kolmogorov(got, d, place, deviation),
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
