package wanem

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Distance is a length of path in metres. Use the constants: 100 * Km.
type Distance float64

// Units of Distance.
const (
	Metre Distance = 1
	Km             = 1000 * Metre
	Mile           = 1609.344 * Metre // the international mile
)

// Kilometres returns the distance in kilometres.
func (d Distance) Kilometres() float64 { return float64(d / Km) }

// String returns kilometres with as many digits as are needed: "100 km", "0.5 km".
func (d Distance) String() string {
	// Whole millimetres: a distance that went through float arithmetic must not print 17 digits.
	km := math.Round(d.Kilometres()*1e6) / 1e6
	return strconv.FormatFloat(km, 'f', -1, 64) + " km"
}

// distanceUnits is ordered so that a suffix is tried before its own suffix.
var distanceUnits = []struct {
	suffix string
	unit   Distance
}{{"km", Km}, {"mi", Mile}, {"m", Metre}, {"", Km}}

// ParseDistance reads "100", "100km", "500 m" or "62.5mi". A bare number is
// kilometres. Negative, infinite and unreadable distances are errors.
func ParseDistance(s string) (Distance, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	for _, u := range distanceUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || bad(n) {
			break
		}
		return Distance(n) * u.unit, nil
	}
	return 0, fmt.Errorf("parse distance %q: no length: use kilometres from 0 up, as 100, 0.5, 100km, 500m or 62mi", s)
}
