package sweep

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"lockstep/wanem"
)

// setUp bounds what a trial needs beside warm-up, load, rest and probes: a volume in
// sync, its comparison and, for a database, its file system and its recovery.
func (c Config) setUp() time.Duration {
	if c.Workload == Pgbench {
		return 15 * time.Minute
	}
	return 2 * time.Minute
}

// Trial is one target at one distance, measured once: the content of its file.
type Trial struct {
	Target      string   `json:"target"`
	Km          float64  `json:"km"`
	Repeat      int      `json:"repeat"`
	Seed        uint64   `json:"seed"`
	Began       string   `json:"began"`       // RFC 3339
	BareRTTUS   float64  `json:"bare_rtt_us"` // of the link without any distance
	RTTWantUS   float64  `json:"rtt_want_us"`
	RTTBeforeUS float64  `json:"rtt_before_us"` // medians
	RTTAfterUS  float64  `json:"rtt_after_us"`
	RTTRepeated int      `json:"rtt_repeated"` // measurements taken again as they were off
	Drops       uint64   `json:"drops"`
	Degraded    string   `json:"degraded,omitempty"` // how the volume lost a copy for a while
	Fidelity    Fidelity `json:"fidelity"`
	Why         string   `json:"why,omitempty"`
	Writes      int64    `json:"writes"`
	Late        int64    `json:"late"`
	IOPS        float64  `json:"iops"`
	P50US       float64  `json:"p50_us"`
	P99US       Value    `json:"p99_us"` // null: too few writes for one
	MeanUS      float64  `json:"mean_us"`
	// Verified is the number of blocks, or of commits, that were read back and right.
	Verified int64 `json:"verified"`
	// Compared is the number of bytes of each replica that were compared, and equal.
	Compared int64   `json:"compared"`
	Probes   []Probe `json:"probes,omitempty"`
	// Histogram is of latencies in ns: HdrHistogram V2, compressed, base64.
	Histogram string `json:"histogram"`

	latency *hdrhistogram.Histogram
	target  Target // of a trial that is to be run
}

// rttUS is the achieved RTT that the trial's latency is held against.
func (t *Trial) rttUS() float64 { return (t.RTTBeforeUS + t.RTTAfterUS) / 2 }

func (t *Trial) setLatency(m measured) error {
	encoded, err := m.latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return fmt.Errorf("encode the histogram: %w", err)
	}
	t.latency = m.latency
	t.Histogram = base64.StdEncoding.EncodeToString(encoded)
	t.Writes, t.Late, t.IOPS = m.latency.TotalCount(), m.late, m.iops()
	t.P50US, t.P99US = percentile(m.latency, 50), tail(m.latency, 99)
	t.MeanUS = m.latency.Mean() / 1000
	return nil
}

func (t *Trial) decodeLatency() error {
	encoded, err := base64.StdEncoding.DecodeString(t.Histogram)
	if err != nil {
		return fmt.Errorf("decode the histogram: %w", err)
	}
	t.latency, err = hdrhistogram.Decode(encoded)
	if err != nil {
		return fmt.Errorf("decode the histogram: %w", err)
	}
	return nil
}

// percentile returns microseconds.
func percentile(h *hdrhistogram.Histogram, p float64) float64 {
	return float64(h.ValueAtPercentile(p)) / 1000
}

// mostProbes is the number of RTT probes where they cost next to no time.
const mostProbes = 50

// probesOf is the number of RTT probes that take about a fifth of a second.
func probesOf(rtt time.Duration) int {
	const atLeast = 5
	return int(min(mostProbes, max(atLeast, 200*time.Millisecond/max(rtt, time.Microsecond))))
}

// run measures one trial. It fills in what it learns.
func (t *Trial) run(ctx context.Context, c Config, w workload) error {
	limit := c.setUp() + c.WarmUp + c.Duration + grace + 2*c.Idle
	ctx, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("no end after %v: the volume or the link hangs; the logs may say why", limit))
	defer cancel()
	t.Began = time.Now().Format(time.RFC3339)
	if t.target.Wire() == nil {
		err := t.measure(ctx, c, w)
		t.judgeLoad()
		return err
	}
	link := c.Link(t.Km)
	t.RTTWantUS = micros(link.RTT())
	before, err := t.setLink(ctx, link)
	if err != nil {
		return fmt.Errorf("before the load: %w", err)
	}
	if err := t.measure(ctx, c, w); err != nil {
		return err
	}
	after, err := t.measureRTT(ctx, link)
	if err != nil {
		return fmt.Errorf("measure RTT after the load: %w", err)
	}
	if t.Drops, err = t.target.Wire().Drops(); err != nil {
		return fmt.Errorf("read the link's drops: %w", err)
	}
	t.RTTBeforeUS, t.RTTAfterUS = micros(before.Median), micros(after.Median)
	t.judge(link)
	return nil
}

// measure does what is done on a link that is set.
func (t *Trial) measure(ctx context.Context, c Config, w workload) error {
	if t.Repeat == 0 && c.Idle > 0 {
		if err := t.probe(ctx, c); err != nil {
			return err
		}
	}
	return t.load(ctx, w)
}

// attempts is how often an RTT that is not the wanted one is measured: a busy
// moment of the machine is no property of the link.
const attempts = 3

// settle measures until the RTT is the wanted one or the attempts are used up,
// and counts what it had to repeat.
func (t *Trial) settle(link wanem.Link, measure func() (RTT, error)) (rtt RTT, err error) {
	for attempt := range attempts {
		if attempt > 0 {
			t.RTTRepeated++
		}
		if rtt, err = measure(); err != nil || !t.bounds(link).miss(micros(rtt.Median)) {
			break
		}
	}
	return rtt, err
}

// setLink sets the link and returns its RTT. A link that is off is set again:
// its calibration may have met a busy moment too.
func (t *Trial) setLink(ctx context.Context, link wanem.Link) (RTT, error) {
	return t.settle(link, func() (RTT, error) {
		if err := t.target.Wire().SetLink(ctx, link); err != nil {
			return RTT{}, fmt.Errorf("set the link: %w", err)
		}
		return t.target.Wire().MeasureRTT(ctx, probesOf(link.RTT()))
	})
}

// measureRTT returns the RTT of a link that was set earlier.
func (t *Trial) measureRTT(ctx context.Context, link wanem.Link) (RTT, error) {
	return t.settle(link, func() (RTT, error) { return t.target.Wire().MeasureRTT(ctx, probesOf(link.RTT())) })
}

// withDevice opens the volume anew, uses it, closes it and compares the
// copies: the next opening would make them equal.
func (t *Trial) withDevice(ctx context.Context, use func(Device) error) error {
	dev, err := t.target.Open(ctx)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	err = use(dev)
	if ctx.Err() != nil { // whatever else failed, failed because of that
		var left *leftBehind
		if errors.As(err, &left) {
			err = errors.Join(context.Cause(ctx), left)
		} else {
			err = context.Cause(ctx)
		}
	}
	if closing := dev.Close(); err == nil && closing != nil {
		err = fmt.Errorf("close the volume: %w", closing)
	}
	if err != nil {
		return err
	}
	compared, err := t.target.Compare(ctx)
	if degraded := new(DegradedError); errors.As(err, &degraded) {
		t.Degraded, err = degraded.Why, nil
	}
	if err != nil {
		return fmt.Errorf("compare the copies: %w", err)
	}
	t.Compared += compared
	return nil
}

func (t *Trial) probe(ctx context.Context, c Config) error {
	for _, size := range probeSizes {
		err := t.withDevice(ctx, func(dev Device) error {
			probe, err := runProbe(ctx, dev, t.Seed, size, c.Idle)
			t.Probes = append(t.Probes, probe)
			return err
		})
		if err != nil {
			return fmt.Errorf("probe of cold and idle writes: %w", err)
		}
	}
	return nil
}

func (t *Trial) load(ctx context.Context, w workload) error {
	return t.withDevice(ctx, func(dev Device) error {
		m, verified, err := w.run(ctx, t.Seed, dev, t.target.Source())
		if err != nil {
			return err
		}
		t.Verified = verified
		return t.setLatency(m)
	})
}
