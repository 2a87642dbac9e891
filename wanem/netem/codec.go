package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Layout of TCA_OPTIONS; the table is in the package's documentation.
// Names and numbers are those of linux/pkt_sched.h.
const (
	qoptSize  = 24
	tickNanos = 64 // PSCHED_SHIFT is 6 since Linux 2.6.31

	attrReorder   = 3
	attrCorrupt   = 4
	attrLoss      = 5
	attrRate      = 6
	attrRate64    = 8
	attrLatency64 = 10
	attrJitter64  = 11
	attrSeed      = 14

	lossGE = 2
)

// encode returns the value of TCA_OPTIONS for a valid configuration.
func encode(c Config) []byte {
	native := binary.NativeEndian
	b := make([]byte, qoptSize, 128)
	native.PutUint32(b[4:], c.Limit)
	native.PutUint32(b[8:], probability(c.Loss))
	native.PutUint32(b[12:], c.ReorderGap)
	native.PutUint32(b[16:], probability(c.Duplicate))
	if c.Reorder > 0 {
		b = appendAttr(b, attrReorder, words(probability(c.Reorder), 0))
	}
	if c.Corrupt > 0 {
		b = appendAttr(b, attrCorrupt, words(probability(c.Corrupt), 0))
	}
	if g := c.Bursts; g != (GilbertElliott{}) {
		b = appendAttr(b, attrLoss|attrNested, appendAttr(nil, lossGE, words(
			probability(g.Enter), probability(g.Leave), probability(1-g.LossBad), probability(g.LossGood))))
	}
	if rate := c.RateBits / 8; rate > math.MaxUint32 {
		b = appendAttr(b, attrRate64, native.AppendUint64(nil, rate))
		b = appendAttr(b, attrRate, words(math.MaxUint32, 0, 0, 0))
	} else if rate > 0 {
		b = appendAttr(b, attrRate, words(uint32(rate), 0, 0, 0))
	}
	for _, a := range []struct {
		kind  uint16
		value uint64
	}{{attrLatency64, uint64(c.Delay)}, {attrJitter64, uint64(c.Jitter)}, {attrSeed, c.Seed}} {
		if a.value != 0 {
			b = appendAttr(b, a.kind, native.AppendUint64(nil, a.value))
		}
	}
	return b
}

// decode reads the value of TCA_OPTIONS, as encode, tc or the kernel wrote it.
// What a Config has no field for is ignored.
func decode(b []byte) (Config, error) {
	if len(b) < qoptSize {
		return Config{}, fmt.Errorf("decode netem options: %d bytes, want at least %d", len(b), qoptSize)
	}
	a, err := parseAttrs(b[qoptSize:])
	if err != nil {
		return Config{}, fmt.Errorf("decode netem options: %w", err)
	}
	native := binary.NativeEndian
	c := Config{
		Delay:      nanos(a, attrLatency64, native.Uint32(b)),
		Jitter:     nanos(a, attrJitter64, native.Uint32(b[20:])),
		Limit:      native.Uint32(b[4:]),
		Loss:       share(native.Uint32(b[8:])),
		Duplicate:  share(native.Uint32(b[16:])),
		Reorder:    share(a.u32(attrReorder, 0)),
		ReorderGap: native.Uint32(b[12:]),
		Corrupt:    share(a.u32(attrCorrupt, 0)),
		RateBits:   8 * uint64(a.u32(attrRate, 0)),
	}
	if rate, ok := a.u64(attrRate64); ok {
		c.RateBits = 8 * rate
	}
	c.Seed, _ = a.u64(attrSeed)
	c.Bursts, err = decodeBursts(a[attrLoss])
	return c, err
}

func decodeBursts(b []byte) (GilbertElliott, error) {
	a, err := parseAttrs(b)
	if err != nil {
		return GilbertElliott{}, fmt.Errorf("decode netem loss model: %w", err)
	}
	if len(a[lossGE]) < 16 {
		return GilbertElliott{}, nil
	}
	return GilbertElliott{
		Enter:    share(a.u32(lossGE, 0)),
		Leave:    share(a.u32(lossGE, 1)),
		LossBad:  1 - share(a.u32(lossGE, 2)),
		LossGood: share(a.u32(lossGE, 3)),
	}, nil
}

// nanos prefers the 64-bit attribute over the ticks of the fixed header.
func nanos(a attrs, kind uint16, ticks uint32) time.Duration {
	if ns, ok := a.u64(kind); ok {
		return time.Duration(ns)
	}
	return time.Duration(ticks) * tickNanos
}

// probability and share convert between 0..1 and the kernel's 0..2^32-1.
func probability(p float64) uint32 { return uint32(math.Round(p * math.MaxUint32)) }

func share(p uint32) float64 { return float64(p) / math.MaxUint32 }

func words(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}
