package netem

import (
	"fmt"
	"math"
	"strings"
	"time"

	"lockstep/wanem"
)

// Config is one direction of a link as netem sees it. The zero value delays
// and drops nothing.
type Config struct {
	// Delay is added to every packet, up to wanem.MaxDelay.
	Delay time.Duration
	// Jitter is the half-width of the uniform distribution around Delay, at
	// most MaxJitter. Packets overtake each other unless RateBits is set.
	Jitter time.Duration
	// Loss is the probability, 0 to 1, that a packet is lost whatever happened
	// to the one before. Leave it 0 if Bursts is set.
	Loss float64
	// Bursts makes losses come in bursts instead.
	Bursts GilbertElliott
	// RateBits is the capacity in bits per second, in steps of 8; 0 is unlimited.
	RateBits uint64
	// Reorder is the probability that a packet is sent at once, and so overtakes
	// those that wait; it needs a Delay to skip.
	Reorder float64
	// ReorderGap lets at least ReorderGap-1 packets wait between two that are sent
	// at once; 0 is as 1, no least number. With a Reorder of 1 every ReorderGap-th
	// packet is sent at once.
	ReorderGap uint32
	// Duplicate is the probability that a packet is sent twice.
	Duplicate float64
	// Corrupt is the probability that one bit of a packet is flipped, anywhere
	// from its link-layer header on.
	Corrupt float64
	// Limit is the number of packets held, those in flight included; 0 lets
	// Apply size it from rate and delay.
	Limit uint32
	// Seed makes jitter, loss and the like repeatable (Linux 6.6 on); 0 lets the kernel choose.
	Seed uint64
}

// GilbertElliott is a loss model with a good and a bad state; all fields are
// probabilities from 0 to 1, drawn for each packet. The zero value is off.
type GilbertElliott struct {
	Enter    float64 // from good to bad (p)
	Leave    float64 // from bad to good (r)
	LossBad  float64 // of loss in the bad state (1-h)
	LossGood float64 // of loss in the good state (k1, also written 1-k)
}

// Bursts returns the model that loses a share of all packets (0 to below 1), in
// bursts of a mean length in packets (at least 1): everything in the bad state,
// nothing in the good one.
func Bursts(loss, packets float64) GilbertElliott {
	leave := 1 / packets
	return GilbertElliott{Enter: loss / (1 - loss) * leave, Leave: leave, LossBad: 1}
}

// meanLoss is the share of all packets that the model loses in the long run.
func (g GilbertElliott) meanLoss() float64 {
	if g.Enter+g.Leave == 0 {
		return g.LossGood // it starts in the good state and stays there
	}
	inBad := g.Enter / (g.Enter + g.Leave)
	return inBad*g.LossBad + (1-inBad)*g.LossGood
}

// MaxJitter is the largest half-width that the kernel can draw: it computes
// with a signed 32-bit number of nanoseconds.
const MaxJitter = time.Duration(math.MaxInt32)

// orderingRate keeps packets in order under jitter; 12 ns a full frame.
const orderingRate = 1_000_000_000_000

// ForLink returns the two directions of a valid link: forward is for the
// interface that leads to site B, back for the one that leads to site A.
func ForLink(l wanem.Link) (forward, back Config) {
	c := Config{
		// The standard deviation of a uniform distribution is its half-width / sqrt 3.
		Jitter:   time.Duration(math.Round(float64(l.Jitter) * math.Sqrt(3))),
		Loss:     l.Loss,
		RateBits: l.RateBits,
	}
	if c.Jitter > 0 && c.RateBits == 0 {
		c.RateBits = orderingRate
	}
	forward, back = c, c
	forward.Delay, back.Delay = l.Delays()
	return forward, back
}

// MeanReorder returns the share of all packets that are sent at once in the long
// run, 0 to 1: ReorderGap-1 packets wait, then as many as chance wants.
func (c Config) MeanReorder() float64 {
	if c.Reorder == 0 {
		return 0
	}
	return 1 / (float64(max(c.ReorderGap, 1)-1) + 1/c.Reorder)
}

// MeanLoss returns the share of all packets lost in the long run, 0 to 1, by
// either of the two loss models.
func (c Config) MeanLoss() float64 { return c.Loss + c.Bursts.meanLoss() }

// Validate returns an error that names the field at fault and how to mend it, or nil.
func (c Config) Validate() error {
	switch {
	case c.Delay < 0 || c.Delay > wanem.MaxDelay:
		return fieldError("delay", c.Delay, fmt.Sprintf("a duration from 0 to %v", wanem.MaxDelay))
	case c.Jitter < 0 || c.Jitter > MaxJitter:
		return fieldError("jitter", c.Jitter, fmt.Sprintf("a duration from 0 to %v", MaxJitter))
	case c.Loss != 0 && c.Bursts != (GilbertElliott{}):
		return fieldError("loss", c.Loss, "either independent loss or bursts, not both")
	case c.RateBits%8 != 0:
		return fieldError("rate", c.RateBits, "a multiple of 8 bits per second")
	}
	if (c.Reorder > 0 || c.ReorderGap > 0) && c.Delay == 0 {
		return fieldError("reorder", c.Reorder, "a delay too: a packet overtakes by skipping it")
	}
	if c.ReorderGap > 0 && c.Reorder == 0 {
		return fieldError("reorder gap", c.ReorderGap, "a reorder probability too, as 1 for every such packet")
	}
	for name, p := range map[string]float64{
		"reorder": c.Reorder, "duplicate": c.Duplicate, "corrupt": c.Corrupt, "loss": c.Loss,
		"burst enter": c.Bursts.Enter, "burst leave": c.Bursts.Leave,
		"burst loss in bad": c.Bursts.LossBad, "burst loss in good": c.Bursts.LossGood,
	} {
		if !(p >= 0 && p <= 1) {
			return fieldError(name, p, "a probability from 0 to 1")
		}
	}
	return nil
}

func fieldError(field string, value any, want string) error {
	return fmt.Errorf("validate netem configuration: %s %v: use %s", field, value, want)
}

// String describes the configuration in one line for people.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "delay %v", c.Delay)
	if c.Jitter > 0 {
		fmt.Fprintf(&b, " +-%v", c.Jitter)
	}
	if c.Loss > 0 {
		fmt.Fprintf(&b, ", loss %.6g %%", c.Loss*100)
	}
	if g := c.Bursts; g != (GilbertElliott{}) {
		fmt.Fprintf(&b, ", bursts (enter %.6g %%, leave %.6g %%, loss %.6g %% in bad, %.6g %% in good)",
			g.Enter*100, g.Leave*100, g.LossBad*100, g.LossGood*100)
	}
	if c.Reorder > 0 {
		fmt.Fprintf(&b, ", reorder %.6g %% (gap %d)", c.Reorder*100, c.ReorderGap)
	}
	if c.Duplicate > 0 {
		fmt.Fprintf(&b, ", duplicate %.6g %%", c.Duplicate*100)
	}
	if c.Corrupt > 0 {
		fmt.Fprintf(&b, ", corrupt %.6g %%", c.Corrupt*100)
	}
	if c.RateBits > 0 {
		fmt.Fprintf(&b, ", rate %s", wanem.FormatRate(c.RateBits))
	}
	fmt.Fprintf(&b, ", limit %d packets", c.Limit)
	return b.String()
}

// completed returns c as it is sent: with a limit, and with a gap if it reorders.
func (c Config) completed() Config {
	c = c.withLimit()
	if c.Reorder > 0 && c.ReorderGap == 0 {
		c.ReorderGap = 1 // 0 would turn reordering off
	}
	return c
}

// withLimit returns c with a limit that holds two bandwidth-delay products of
// full frames: one in flight, and one as the queue of the bottleneck or for
// packets that are smaller.
func (c Config) withLimit() Config {
	const (
		unlimitedBits = 100e9 // more than a veth carries
		frameBits     = 1500 * 8
		least         = 10_000 // room for small packets on short links
	)
	if c.Limit != 0 {
		return c
	}
	rate := float64(c.RateBits)
	if rate == 0 || rate > unlimitedBits {
		rate = unlimitedBits
	}
	inFlight := rate * (c.Delay + c.Jitter).Seconds() / frameBits
	c.Limit = uint32(math.Min(least+2*inFlight, math.MaxUint32))
	return c
}
