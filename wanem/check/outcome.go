package check

import (
	"math"
	"slices"
	"time"
)

// arrived says of each number whether it came intact.
func (o outcome) arrived() []bool {
	seen := make([]bool, o.sent)
	for _, a := range o.arrivals {
		seen[a.number] = true
	}
	return seen
}

// missing is how many did not come intact.
func (o outcome) missing() int {
	n := 0
	for _, there := range o.arrived() {
		if !there {
			n++
		}
	}
	return n
}

// duplicates is how many came once more than they should.
func (o outcome) duplicates() int { return len(o.arrivals) - (o.sent - o.missing()) }

// bursts is in how many runs the missing are missing.
func (o outcome) bursts() int {
	n, before := 0, true
	for _, there := range o.arrived() {
		if before && !there {
			n++
		}
		before = there
	}
	return n
}

// overtakers is how many came, for the first time, before one that was sent
// earlier.
func (o outcome) overtakers() int {
	seen := make([]bool, o.sent)
	var first []int
	for _, a := range o.arrivals {
		if !seen[a.number] {
			seen[a.number] = true
			first = append(first, a.number)
		}
	}
	n, least := 0, math.MaxInt
	for _, number := range slices.Backward(first) {
		if number > least {
			n++
		}
		least = min(least, number)
	}
	return n
}

// quicker is how many took less than a delay.
func (o outcome) quicker(than time.Duration) int {
	n := 0
	for _, a := range o.arrivals {
		if a.delay < than {
			n++
		}
	}
	return n
}

// delays are the one-way delays in seconds, sorted.
func (o outcome) delays() []float64 {
	d := make([]float64, len(o.arrivals))
	for i, a := range o.arrivals {
		d[i] = a.delay.Seconds()
	}
	slices.Sort(d)
	return d
}

// rate is at how many bits per second frames of a size came: what half of them took,
// by the median of where that half begins, so that no single one decides that was
// held up. NaN for fewer than two.
func (o outcome) rate(frame int) float64 {
	half := len(o.arrivals) / 2
	took := make([]float64, half)
	for i := range took {
		took[i] = o.arrivals[i+half].at.Sub(o.arrivals[i].at).Seconds()
	}
	slices.Sort(took)
	return float64(half*frame*8) / median(took)
}

// kept says whether a line that takes so many frames a second was never idle between
// the first and the last: each was sent, by its stamp, before those ahead were done.
func (o outcome) kept(perSecond float64) bool {
	var begin time.Time
	for i, a := range o.arrivals {
		sent := a.at.Add(-a.delay)
		if i == 0 {
			begin = sent
		}
		if sent.Sub(begin).Seconds()*perSecond > float64(i) {
			return false
		}
	}
	return true
}
