package check

import "math"

// errors4 is how many standard errors a figure may be off: chance does that to one
// in 16,000.
const errors4 = 4

// band is from where to where a measurement may lie.
type band struct{ low, high float64 }

func around(x, off float64) band { return band{x - off, x + off} }

func (b band) holds(x float64) bool { return x >= b.low && x <= b.high }

// binomial is the band of the share of n draws that come out with probability p;
// half a draw is added for its being in steps.
func binomial(p float64, n int) band {
	return around(p, errors4*math.Sqrt(p*(1-p)/float64(n))+0.5/float64(n))
}

// markov is the band of the share of n packets that a two-state chain (enter and
// leave, as netem.GilbertElliott has them) spends in its bad state: successive ones
// are correlated by 1-enter-leave, which makes n worth less.
func markov(enter, leave float64, n int) band {
	p, correlation := enter/(enter+leave), 1-enter-leave
	variance := p * (1 - p) / float64(n) * (1 + correlation) / (1 - correlation)
	return around(p, errors4*math.Sqrt(variance)+0.5/float64(n))
}

// geometric is the band of the mean of n lengths, each of which ends with
// probability end at every step.
func geometric(end float64, n int) band {
	return around(1/end, errors4*math.Sqrt(1-end)/end/math.Sqrt(float64(n)))
}

// renewal is the band of the share of n packets that are picked, where least are
// passed over after each, and then one is picked with probability p.
func renewal(p float64, least, n int) band {
	mean, variance := float64(least)+1/p, (1-p)/(p*p)
	return around(1/mean, errors4*math.Sqrt(variance/(mean*mean*mean)/float64(n))+1/float64(n))
}

// quartiles is the distance between the quartiles of sorted values: the spread of
// the middle half.
func quartiles(sorted []float64) float64 { return quantile(sorted, 0.75) - quantile(sorted, 0.25) }

func median(sorted []float64) float64 { return quantile(sorted, 0.5) }

// quantile is a value of the sorted ones; NaN if there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// distribution is one that jitter may have, around 0 with a standard deviation of 1.
type distribution struct {
	name      string
	quartiles float64 // their distance
	share     func(x float64) float64
}

var (
	uniform = distribution{"uniform", math.Sqrt(3), func(x float64) float64 {
		return min(1, max(0, (x/math.Sqrt(3)+1)/2))
	}}
	normal = distribution{"normal", 1.3489795, func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }}
)

// kolmogorov is the largest distance between the distribution of sorted values and
// another, at a place and a standard deviation (Kolmogorov-Smirnov).
func kolmogorov(sorted []float64, d distribution, place, deviation float64) float64 {
	worst, n := 0.0, float64(len(sorted))
	for i, x := range sorted {
		want := d.share((x - place) / deviation)
		worst = max(worst, want-float64(i)/n, float64(i+1)/n-want)
	}
	return worst
}

// kolmogorovLimit is what chance does to that distance in one of 16,000 cases.
func kolmogorovLimit(n int) float64 { return 2.28 / math.Sqrt(float64(n)) }

// spreadError is the share by which chance lets the quartiles' distance be off: for
// the uniform distribution a standard error of 1, for the normal one of 1.17.
func spreadError(n int) float64 { return errors4 * 1.17 / math.Sqrt(float64(n)) }

// medianError is by how many standard deviations chance lets a median be off: for
// the uniform distribution a standard error of sqrt 3, for the normal one of 1.25.
func medianError(n int) float64 { return errors4 * math.Sqrt(3/float64(n)) }
