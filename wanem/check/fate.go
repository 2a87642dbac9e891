package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

// draws is a stream of probes each of which something may happen to.
func (c *checker) draws(size int) stream {
	return stream{from: sites.A, to: sites.B, count: c.n.draws, size: size, wait: time.Second}
}

// share is how often something happened to probes, in percent.
func share(attribute string, asked float64, held *float64, happened, n int, b band) Row {
	return Row{Attribute: attribute, Unit: "%", Asked: 100 * asked, ReadBack: held, Measured: 100 * float64(happened) / float64(n),
		Low: max(0, 100*b.low), High: 100 * b.high, Note: fmt.Sprintf("%d of %d", happened, n)}
}

func (c *checker) loss(ctx context.Context) error {
	link := km(100)
	link.Loss = 0.05
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	o, err := c.measure(ctx, c.draws(64), true)
	if err != nil {
		return err
	}
	held, err := c.held(func(q netem.Config) float64 { return 100 * q.Loss })
	c.judge(share("loss", link.Loss, held, o.missing(), o.sent, binomial(link.Loss, o.sent)))
	return err
}

func (c *checker) bursts(ctx context.Context) error {
	if !c.netem() {
		c.skip("loss in bursts")
		return nil
	}
	const loss, length = 0.1, 4
	model := netem.Bursts(loss, length)
	if err := c.impair(ctx, netem.Config{Delay: time.Millisecond, Bursts: model}); err != nil {
		return err
	}
	o, err := c.measure(ctx, c.draws(64), true)
	if err != nil {
		return err
	}
	held, err := c.held(func(q netem.Config) float64 { return 100 * q.MeanLoss() })
	c.judge(share("loss in bursts", loss, held, o.missing(), o.sent, markov(model.Enter, model.Leave, o.sent)))
	if err != nil {
		return err
	}
	held, err = c.held(func(q netem.Config) float64 { return 1 / q.Bursts.Leave })
	b := geometric(model.Leave, max(1, o.bursts()))
	c.judge(Row{Attribute: "length of a burst", Unit: "packets", Asked: length, ReadBack: held,
		Measured: float64(o.missing()) / float64(max(1, o.bursts())), Low: b.low, High: b.high, Note: fmt.Sprintf("%d bursts", o.bursts())})
	return err
}

func (c *checker) reorder(ctx context.Context) error {
	return c.reordered(ctx, "reorder", netem.Config{Reorder: 0.25, ReorderGap: 1})
}

func (c *checker) gap(ctx context.Context) error {
	return c.reordered(ctx, "reorder with a gap", netem.Config{Reorder: 0.5, ReorderGap: 5})
}

// reordered counts what skipped the delay, which is long enough for a busy machine
// to be told from it. What skips it must also have overtaken.
func (c *checker) reordered(ctx context.Context, attribute string, conf netem.Config) error {
	if !c.netem() {
		c.skip(attribute)
		return nil
	}
	conf.Delay = 200 * time.Millisecond
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	o, err := c.measure(ctx, c.draws(64), false)
	if err != nil {
		return err
	}
	held, err := c.held(func(q netem.Config) float64 { return 100 * q.MeanReorder() })
	quicker, overtook := o.quicker(conf.Delay/2), o.overtakers()
	r := share(attribute, conf.MeanReorder(), held, quicker, o.sent, renewal(conf.Reorder, int(conf.ReorderGap)-1, o.sent))
	r.Note += fmt.Sprintf(", %d overtook", overtook)
	if overtook == 0 {
		r.Verdict = Failed
	}
	c.judge(r)
	return err
}

func (c *checker) duplicate(ctx context.Context) error {
	if !c.netem() {
		c.skip("duplicate")
		return nil
	}
	conf := netem.Config{Delay: time.Millisecond, Duplicate: 0.05}
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	s := c.draws(64)
	s.twice = true
	o, err := c.measure(ctx, s, false)
	if err != nil {
		return err
	}
	held, err := c.held(func(q netem.Config) float64 { return 100 * q.Duplicate })
	c.judge(share("duplicate", conf.Duplicate, held, o.duplicates(), o.sent, binomial(conf.Duplicate, o.sent)))
	return err
}

// corrupt sends large probes, so that few of the flipped bits are in headers. Those
// probes do not arrive, but for a damaged hardware address of the sender, which
// nobody minds.
func (c *checker) corrupt(ctx context.Context) error {
	if !c.netem() {
		c.skip("corrupt")
		return nil
	}
	const size, unminded = 1400, 6
	conf := netem.Config{Delay: time.Millisecond, Corrupt: 0.05}
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	before, err := c.drops()
	if err != nil {
		return err
	}
	o, err := c.draws(size).run(ctx, c.sites)
	if err != nil {
		return err
	}
	after, err := c.drops()
	if err != nil {
		return err
	}
	c.lost += int(after - before) // the only sure losses: what is damaged may not come
	c.sent += o.sent
	held, err := c.held(func(q netem.Config) float64 { return 100 * q.Corrupt })
	noticed := conf.Corrupt * (1 - unminded/float64(size+frameExtra))
	r := share("corrupt", conf.Corrupt, held, o.missing(), o.sent, binomial(noticed, o.sent))
	r.Note += fmt.Sprintf(", %d of them came", o.broken)
	c.judge(r)
	return err
}

// errBusy is why a figure is not proved whose burst took too long to send.
var errBusy = errors.New("this machine was too busy to send a burst")

// rate sends a backlog and sees how fast it comes.
func (c *checker) rate(ctx context.Context) error {
	const size, bits, tolerance = 1400, 5e6, 0.02
	link := km(100)
	link.RateBits = bits
	if err := c.setLink(ctx, link); err != nil {
		return err
	}
	frame := size + frameExtra
	if !c.netem() {
		frame = size + frameExtra - 14 + 10 // the relay has a header of its own, and none of Ethernet's
	}
	s := stream{from: sites.A, to: sites.B, count: c.n.backlog, size: size, wait: 3 * time.Second}
	s.wait += time.Duration(float64(s.count*frame*8) / bits * float64(time.Second))
	o, err := c.backlog(ctx, s, bits/8/float64(frame))
	if errors.Is(err, errBusy) {
		c.judge(Row{Attribute: "rate", Unit: "Mbit/s", Asked: bits / 1e6, Verdict: Failed, Note: err.Error()})
		return nil
	}
	if err != nil {
		return err
	}
	held, err := c.held(func(q netem.Config) float64 { return float64(q.RateBits) / 1e6 })
	b := around(bits, tolerance*bits)
	c.judge(Row{Attribute: "rate", Unit: "Mbit/s", Asked: bits / 1e6, ReadBack: held, Measured: o.rate(frame) / 1e6, Low: b.low / 1e6, High: b.high / 1e6})
	return err
}

// backlog sends a stream over a line that takes so many frames a second, again if
// the line was idle meanwhile: it was if a probe was not sent when the line would
// have been done with those before it.
func (c *checker) backlog(ctx context.Context, s stream, perSecond float64) (outcome, error) {
	for range 3 {
		o, err := c.measure(ctx, s, false)
		if err != nil || o.kept(perSecond) {
			return o, err
		}
	}
	return outcome{}, errBusy
}

// limit sends more within the delay than may wait.
func (c *checker) limit(ctx context.Context) error {
	if !c.netem() {
		c.skip("limit")
		return nil
	}
	conf := netem.Config{Delay: 2 * time.Second, Limit: 100}
	if err := c.impair(ctx, conf); err != nil {
		return err
	}
	s := stream{from: sites.A, to: sites.B, count: 2 * int(conf.Limit), size: 64, wait: conf.Delay + time.Second}
	o, err := c.measure(ctx, s, true)
	if err != nil {
		return err
	}
	if o.took > conf.Delay {
		c.judge(Row{Attribute: "limit", Unit: "packets", Asked: float64(conf.Limit), Verdict: Failed, Note: errBusy.Error()})
		return nil
	}
	held, err := c.held(func(q netem.Config) float64 { return float64(q.Limit) })
	c.judge(Row{Attribute: "limit", Unit: "packets", Asked: float64(conf.Limit), ReadBack: held,
		Measured: float64(o.sent - o.missing()), Low: float64(conf.Limit), High: float64(conf.Limit), Note: fmt.Sprintf("of a burst of %d", o.sent)})
	return err
}
