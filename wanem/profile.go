package wanem

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Physical constants of the model.
const (
	// LightKmPerSecond is the speed of light in vacuum (exact, SI).
	LightKmPerSecond = 299792.458
	// GroupIndex is the group index of standard single-mode fibre at 1550 nm
	// (Corning SMF-28 Ultra data sheet: 1.4682). It makes 4.8974 us per km.
	GroupIndex = 1.4682
)

// Profile says what a path is made of: what a kilometre costs and what comes
// on top whatever the length. The zero value is plain fibre without equipment.
// A Profile is a plain value: take one of Profiles and change what differs.
type Profile struct {
	// Name is what a user types; empty reads as "fibre".
	Name string
	// Kind is what the kilometres are counted along.
	Kind Kind
	// Index is the group index of the fibre; 0 means GroupIndex.
	Index float64
	// Equipment is the delay of everything that is not the line, one way:
	// transponders, error correction, switches, modems.
	Equipment time.Duration
	// Space is the length of a leg through vacuum, one way, that is travelled
	// whatever the Distance: up to a satellite and down again. The Distance is
	// then the ground line behind the earth station.
	Space Distance
	// Jitter and Loss are typical of such a path; Profile.Link copies them.
	Jitter time.Duration
	Loss   float64

	// LimitRTT and LimitDistance are the largest round trip time and distance
	// that the vendor of a product supports for synchronous operation;
	// 0 where it publishes none.
	LimitRTT      time.Duration
	LimitDistance Distance

	// Note is one line for people. Source is where the figures come from.
	Note   string
	Source string
}

// Link returns a link of this profile over a distance, with the profile's own
// jitter and loss.
func (p Profile) Link(d Distance) Link {
	return Link{Distance: d, Profile: p, Jitter: p.Jitter, Loss: p.Loss}
}

// USPerKm returns the one-way delay in microseconds of one kilometre of the
// profile's kind: 4.8974 for plain fibre.
func (p Profile) USPerKm() float64 { return p.nanosPerKm() / 1000 }

// Fixed returns the one-way delay at distance 0: equipment and space.
func (p Profile) Fixed() time.Duration {
	return time.Duration(math.Round(p.oneWayNanos(0)))
}

// Reach returns the largest distance at which roundTrips round trips fit into
// the budget, and false where not even distance 0 does. It is the inverse of
// Link.RTT; roundTrips is at least 1.
func (p Profile) Reach(budget time.Duration, roundTrips int) (Distance, bool) {
	oneWay := float64(budget) / float64(2*roundTrips)
	km := (oneWay - p.oneWayNanos(0)) / p.nanosPerKm()
	if km < 0 {
		return 0, false
	}
	return Distance(km) * Km, true
}

// Validate returns an error that names the field at fault, or nil.
func (p Profile) Validate() error {
	switch {
	case !p.Kind.valid():
		return p.fieldError("kind", uint8(p.Kind), "one of fibre, air, internet")
	case p.Index != 0 && !(p.Index >= 1 && p.Index <= 4):
		return p.fieldError("index", p.Index, "a group index from 1 to 4, or 0 for 1.4682")
	case p.Equipment < 0 || p.Equipment > MaxDelay:
		return p.fieldError("equipment", p.Equipment, fmt.Sprintf("a one-way delay from 0 to %v", MaxDelay))
	case bad(float64(p.Space)):
		return p.fieldError("space", p.Space, "a length from 0 up")
	}
	return nil
}

func (p Profile) fieldError(field string, value any, want string) error {
	return fmt.Errorf("validate profile %q: %s %v: use %s", p.label(), field, value, want)
}

func (p Profile) label() string {
	if p.Name == "" {
		return "fibre"
	}
	return p.Name
}

// nanosPerKm is (index / c) x route factor.
func (p Profile) nanosPerKm() float64 {
	index := p.Index
	if index == 0 {
		index = GroupIndex
	}
	return index / LightKmPerSecond * 1e9 * p.Kind.Factor()
}

// oneWayNanos is the model: km x factor x index/c + space/c + equipment.
func (p Profile) oneWayNanos(d Distance) float64 {
	space := p.Space.Kilometres() / LightKmPerSecond * 1e9
	return d.Kilometres()*p.nanosPerKm() + space + float64(p.Equipment)
}

func (p Profile) oneWay(d Distance) time.Duration {
	return time.Duration(math.Round(p.oneWayNanos(d)))
}

// Named returns the built-in profile of that name, or an error that lists them.
// Case does not matter; "" is fibre.
func Named(name string) (Profile, error) {
	if name == "" {
		return profiles[0], nil
	}
	names := make([]string, len(profiles))
	for i, p := range profiles {
		if strings.EqualFold(name, p.Name) {
			return p, nil
		}
		names[i] = p.Name
	}
	return Profile{}, fmt.Errorf("find profile %q: unknown: use one of %s", name, strings.Join(names, ", "))
}

// Profiles returns the built-in profiles, in the order a person would want to
// read them: paths by length, then products by name. The slice is the caller's.
func Profiles() []Profile { return append([]Profile(nil), profiles...) }
