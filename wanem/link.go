package wanem

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Link describes one path between two sites, both directions. The zero value
// is a valid link: no distance, no equipment, no faults, no rate limit.
// A Link is a plain value: copy it freely.
type Link struct {
	// Distance is the length as the profile's Kind measures it.
	Distance Distance
	// Profile says what a kilometre costs. The zero value is plain fibre.
	Profile Profile

	// Jitter is the standard deviation of the one-way delay. The profile's own
	// Jitter is not added: Profile.Link copies it here.
	Jitter time.Duration
	// Loss is the probability, 0 to 1, that a packet is lost in one direction.
	// The profile's own Loss is not added: Profile.Link copies it here.
	Loss float64
	// RateBits is the capacity of one direction in bits per second; 0 is unlimited.
	RateBits uint64
	// Asymmetry moves delay from one direction to the other: the forward
	// direction (site A to site B) gets (1+Asymmetry)/2 of the round trip and
	// the way back the rest. Range -1 to 1; 0 is symmetric.
	Asymmetry float64
}

// MaxDelay is the longest one-way delay that Validate lets pass. It leaves
// room above two hops over a geostationary satellite (0.5 s) and is short
// enough that a sum of delays never overflows and a TCP connection still opens.
const MaxDelay = 10 * time.Second

// RTT returns the round trip time of an empty packet: propagation and
// equipment, both ways. Serialisation (RateBits) and Jitter come on top.
// The link must be valid.
func (l Link) RTT() time.Duration {
	return 2 * l.Profile.oneWay(l.Distance)
}

// Delays returns the delay of each direction: forward from site A to site B,
// back from B to A. Their sum is RTT exactly; they are equal unless Asymmetry
// is set. The link must be valid.
func (l Link) Delays() (forward, back time.Duration) {
	rtt := l.RTT()
	forward = time.Duration(math.Round(float64(rtt) * (1 + l.Asymmetry) / 2))
	return forward, rtt - forward
}

// Validate returns an error that names the field at fault and how to mend it,
// or nil. Every other method and every backend expects a valid link.
func (l Link) Validate() error {
	if err := l.Profile.Validate(); err != nil {
		return err
	}
	if bad(float64(l.Distance)) {
		return l.fieldError("distance", l.Distance, "a length from 0 up")
	}
	if d := l.Profile.oneWayNanos(l.Distance); d > float64(MaxDelay) {
		return l.fieldError("distance", l.Distance,
			fmt.Sprintf("a distance whose one-way delay is at most %v", MaxDelay))
	}
	if l.Jitter < 0 || l.Jitter > MaxDelay {
		return l.fieldError("jitter", l.Jitter, fmt.Sprintf("a duration from 0 to %v", MaxDelay))
	}
	if bad(l.Loss) || l.Loss > 1 {
		return l.fieldError("loss", l.Loss, "a probability from 0 to 1, as 0.001 for 0.1 %")
	}
	if bad(math.Abs(l.Asymmetry)) || math.Abs(l.Asymmetry) > 1 {
		return l.fieldError("asymmetry", l.Asymmetry, "a share from -1 to 1, 0 for a symmetric link")
	}
	return nil
}

// bad tells whether f is no use as a quantity: negative, infinite or not a number.
func bad(f float64) bool { return !(f >= 0) || math.IsInf(f, 1) }

func (l Link) fieldError(field string, value any, want string) error {
	return fmt.Errorf("validate link (profile %q): %s %v: use %s", l.Profile.label(), field, value, want)
}

// String describes the link in one line for people, one-way and round trip
// both stated: "100 km fibre over otn (one way 550 us, RTT 1099 us)".
func (l Link) String() string {
	forward, back := l.Delays()
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v", l.Distance, l.Profile.Kind)
	if name := l.Profile.label(); name != Fibre.String() {
		fmt.Fprintf(&b, " over %s", name)
	}
	b.WriteString(" (")
	if forward == back {
		fmt.Fprintf(&b, "one way %s", FormatDelay(forward))
	} else {
		fmt.Fprintf(&b, "forward %s, back %s", FormatDelay(forward), FormatDelay(back))
	}
	fmt.Fprintf(&b, ", RTT %s)", FormatDelay(l.RTT()))
	if l.Jitter > 0 {
		fmt.Fprintf(&b, ", jitter %s", FormatDelay(l.Jitter))
	}
	if l.Loss > 0 {
		fmt.Fprintf(&b, ", loss %.6g %%", l.Loss*100)
	}
	if l.RateBits > 0 {
		fmt.Fprintf(&b, ", rate %s", FormatRate(l.RateBits))
	}
	return b.String()
}
