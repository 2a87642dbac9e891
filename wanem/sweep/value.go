package sweep

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Value is a measured value, of microseconds where nothing else is said. NaN is one
// that is not known; JSON shows it as null and people see "-".
type Value float64

var unknown = Value(math.NaN())

// Known tells whether there is a value.
func (v Value) Known() bool { return finite(float64(v)) != nil }

// String gives a whole number, or "-".
func (v Value) String() string {
	if !v.Known() {
		return "-"
	}
	return strconv.FormatFloat(float64(v), 'f', 0, 64)
}

// MarshalJSON gives null for what is not known.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(finite(float64(v))) }

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Value) UnmarshalJSON(text []byte) error {
	var f *float64
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	if *v = unknown; f != nil {
		*v = Value(*f)
	}
	return nil
}

// tails are the percentiles that need many writes: with fewer than one of them would
// lie beyond it, a percentile is the maximum under another name.
var tails = map[float64]int64{99: 100, 99.9: 1000, 99.99: 10_000}

// tail is a percentile in microseconds, unknown if there are too few writes for it.
func tail(h *hdrhistogram.Histogram, p float64) Value {
	least, ok := tails[p]
	if !ok {
		panic(fmt.Sprintf("sweep: how many writes p%v needs is not on record", p))
	}
	if h.TotalCount() < least {
		return unknown
	}
	return Value(percentile(h, p))
}
