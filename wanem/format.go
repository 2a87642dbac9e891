package wanem

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// FormatDelay writes a delay as people in storage do: microseconds below 10 ms
// (with one decimal below 10 us), else milliseconds with up to two decimals.
func FormatDelay(d time.Duration) string {
	switch {
	case d.Abs() < 10*time.Microsecond:
		return decimals(float64(d)/1e3, 10) + " us"
	case d.Abs() < 10*time.Millisecond:
		return decimals(float64(d)/1e3, 1) + " us"
	}
	return decimals(float64(d)/1e6, 100) + " ms"
}

// decimals writes f rounded to a fraction 1/parts, without trailing zeros.
func decimals(f, parts float64) string {
	return strconv.FormatFloat(math.Round(f*parts)/parts, 'f', -1, 64)
}

// rateUnits is ordered from large to small for FormatRate.
var rateUnits = []struct {
	name string
	bits float64
}{{"Tbit/s", 1e12}, {"Gbit/s", 1e9}, {"Mbit/s", 1e6}, {"kbit/s", 1e3}, {"bit/s", 1}}

// FormatRate writes bits per second with the largest decimal unit that fits.
func FormatRate(bits uint64) string {
	for _, u := range rateUnits {
		if float64(bits) >= u.bits {
			return strconv.FormatFloat(float64(bits)/u.bits, 'g', 6, 64) + " " + u.name
		}
	}
	return "unlimited"
}

// ParseRate reads a capacity in decimal units of bits: "10Gbit", "100mbit/s",
// "1.5G", "64kbps". "0" is unlimited.
func ParseRate(s string) (bits uint64, err error) {
	text := strings.ToLower(strings.TrimSpace(s))
	for _, suffix := range []string{"/s", "ps", "it", "b"} {
		text = strings.TrimSuffix(text, suffix)
	}
	factor := 1.0
	if n := len(text); n > 0 {
		if f, ok := map[byte]float64{'t': 1e12, 'g': 1e9, 'm': 1e6, 'k': 1e3}[text[n-1]]; ok {
			factor, text = f, text[:n-1]
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || bad(n) || n*factor > 1e15 {
		return 0, fmt.Errorf("parse rate %q: no number of bits per second: use a form like 10Gbit, 100Mbit or 0 for unlimited", s)
	}
	return uint64(math.Round(n * factor)), nil
}

// ParseLoss reads a probability as "0.1%" or "0.001".
func ParseLoss(s string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		n /= 100
	}
	if err != nil || bad(n) || n > 1 {
		return 0, fmt.Errorf("parse loss %q: no probability: use a form like 0.1%% or 0.001, at most 100%%", s)
	}
	return n, nil
}
