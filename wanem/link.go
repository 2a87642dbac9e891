package wanem

import "time"

// Distance is a length of path in metres. Use the constants: 100 * Km.
type Distance float64

// Units of Distance.
const (
	Metre Distance = 1
	Km             = 1000 * Metre
)

// Link describes one path between two sites, both directions. The zero value
// is a valid link: no distance, no equipment, no faults, no rate limit.
// A Link is a plain value: copy it freely.
type Link struct {
	// Distance is the length as the profile's Kind measures it.
	Distance Distance
	// Profile says what a kilometre costs. The zero value is plain fibre.
	Profile Profile

	// Jitter is the standard deviation of the one-way delay.
	Jitter time.Duration
	// Loss is the probability, 0 to 1, that a packet is lost in one direction.
	Loss float64
	// RateBits is the capacity of one direction in bits per second; 0 is unlimited.
	RateBits uint64
	// Asymmetry moves delay from one direction to the other: the forward
	// direction (site A to site B) gets (1+Asymmetry)/2 of the round trip and
	// the way back the rest. Range -1 to 1; 0 is symmetric.
	Asymmetry float64
}
