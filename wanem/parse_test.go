package wanem_test

import (
	"math"
	"testing"
	"time"

	"lockstep/wanem"
)

// FuzzParse feeds the parsers anything: what they accept must be usable and,
// where there is a writer, survive being written and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"100km", "62.5 mi", "1e3m", "10Gbit/s", "64kbps", "0.1%", "-1", "nan", "0x1p4", "ips", "kb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := wanem.ParseDistance(s); err == nil && (!(d >= 0) || math.IsInf(float64(d), 0)) {
			t.Errorf("ParseDistance(%q) = %v", s, float64(d))
		}
		if loss, err := wanem.ParseLoss(s); err == nil && !(loss >= 0 && loss <= 1) {
			t.Errorf("ParseLoss(%q) = %v", s, loss)
		}
		if bits, err := wanem.ParseRate(s); err == nil && bits > 0 {
			again, err := wanem.ParseRate(wanem.FormatRate(bits))
			if off := math.Abs(float64(again)-float64(bits)) / float64(bits); err != nil || off > 1e-5 {
				t.Errorf("ParseRate(%q) = %d, written %q, read %d, %v", s, bits, wanem.FormatRate(bits), again, err)
			}
		}
	})
}

// TestReachInvertsRTT holds for every built-in profile and any number of trips.
func TestReachInvertsRTT(t *testing.T) {
	for _, p := range wanem.Profiles() {
		for _, km := range []wanem.Distance{0, 1, 100, 5570} {
			for trips := 1; trips <= 2; trips++ {
				link := p.Link(km * wanem.Km)
				// Delays are whole nanoseconds: a microsecond more must be enough.
				budget := time.Duration(trips) * (link.RTT() + time.Microsecond)
				got, ok := p.Reach(budget, trips)
				if off := got - link.Distance; !ok || off < 0 || off > 200*wanem.Metre {
					t.Errorf("%s: %v fits %d x RTT %v at %v, want %v", p.Name, budget, trips, link.RTT(), got, link.Distance)
				}
			}
		}
	}
}

func TestBuiltInProfilesAreValidAndNameTheirSource(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range wanem.Profiles() {
		if err := p.Link(0).Validate(); err != nil {
			t.Error(err)
		}
		if p.Name == "" || p.Note == "" || p.Source == "" || seen[p.Name] {
			t.Errorf("profile %+v: name, note or source is missing, or the name is taken", p)
		}
		seen[p.Name] = true
	}
}
