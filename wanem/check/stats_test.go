package check

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lockstep/wanem/netem"
)

const draws = 5000

// chain plays the kernel's Gilbert-Elliott model: the state changes for the packet
// after the one it was drawn with.
func chain(rng *rand.Rand, g netem.GilbertElliott, n int) outcome {
	o, bad := outcome{sent: n}, false
	for i := range n {
		lost, change := bad, g.Enter
		if bad {
			change = g.Leave
		}
		if rng.Float64() < change {
			bad = !bad
		}
		if !lost {
			o.arrivals = append(o.arrivals, arrival{number: i})
		}
	}
	return o
}

func lost(rng *rand.Rand, p float64, n int) int {
	count := 0
	for range n {
		if rng.Float64() < p {
			count++
		}
	}
	return count
}

// picked plays the kernel's reordering: so many wait, then each is picked with
// probability p.
func picked(rng *rand.Rand, p float64, least, n int) int {
	count, waited := 0, 0
	for range n {
		if waited >= least && rng.Float64() < p {
			count, waited = count+1, 0
		} else {
			waited++
		}
	}
	return count
}

// TestBandsHoldWhatIsRight plays what was asked for two hundred times, which must
// never fail, and something a little else, which must nearly always.
func TestBandsHoldWhatIsRight(t *testing.T) {
	right, wrong := netem.Bursts(0.1, 4), netem.Bursts(0.1, 6)
	for _, tc := range []struct {
		name         string
		right, other func(*rand.Rand) bool
	}{
		{"binomial",
			func(r *rand.Rand) bool { return binomial(0.05, draws).holds(float64(lost(r, 0.05, draws)) / draws) },
			func(r *rand.Rand) bool { return binomial(0.05, draws).holds(float64(lost(r, 0.08, draws)) / draws) }},
		{"markov",
			func(r *rand.Rand) bool {
				return markov(right.Enter, right.Leave, draws).holds(float64(chain(r, right, draws).missing()) / draws)
			},
			func(r *rand.Rand) bool {
				return markov(right.Enter, right.Leave, draws).holds(float64(chain(r, netem.Bursts(0.2, 4), draws).missing()) / draws)
			}},
		{"geometric",
			func(r *rand.Rand) bool { return lengthHolds(chain(r, right, draws), right.Leave) },
			func(r *rand.Rand) bool { return lengthHolds(chain(r, wrong, 4*draws), right.Leave) }},
		{"renewal",
			func(r *rand.Rand) bool {
				return renewal(0.5, 4, draws).holds(float64(picked(r, 0.5, 4, draws)) / draws)
			},
			func(r *rand.Rand) bool {
				return renewal(0.5, 4, draws).holds(float64(picked(r, 0.5, 3, draws)) / draws)
			}},
		{"renewal without chance",
			func(r *rand.Rand) bool { return renewal(1, 4, draws).holds(float64(picked(r, 1, 4, draws)) / draws) },
			func(r *rand.Rand) bool { return renewal(1, 4, draws).holds(float64(picked(r, 0.98, 4, draws)) / draws) }},
		{"uniform",
			func(r *rand.Rand) bool { return shapeHolds(func() float64 { return r.Float64()*2 - 1 }, uniform) },
			func(r *rand.Rand) bool {
				return shapeHolds(func() float64 { return r.NormFloat64() / math.Sqrt(3) }, uniform)
			}},
		{"normal",
			func(r *rand.Rand) bool {
				return shapeHolds(func() float64 { return r.NormFloat64() / math.Sqrt(3) }, normal)
			},
			func(r *rand.Rand) bool { return shapeHolds(func() float64 { return r.Float64()*2 - 1 }, normal) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const times = 200
			failed, held := 0, 0
			for seed := range uint64(times) {
				if !tc.right(rand.New(rand.NewPCG(seed, 1))) {
					failed++
				}
				if tc.other(rand.New(rand.NewPCG(seed, 2))) {
					held++
				}
			}
			if failed > 0 || held > times/20 {
				t.Errorf("what is right failed %d of %d times; what is wrong held %d times", failed, times, held)
			}
		})
	}
}

func lengthHolds(o outcome, leave float64) bool {
	return geometric(leave, o.bursts()).holds(float64(o.missing()) / float64(o.bursts()))
}

// shapeHolds judges draws of a half-width or a deviation of 1/sqrt 3 as jitter is judged.
func shapeHolds(draw func() float64, d distribution) bool {
	x := make([]float64, draws)
	for i := range x {
		x[i] = draw()
	}
	slices.Sort(x)
	deviation := 1 / math.Sqrt(3)
	return around(deviation, spreadError(draws)*deviation).holds(quartiles(x)/d.quartiles) &&
		kolmogorov(x, d, 0, deviation) <= kolmogorovLimit(draws)
}

func TestQuantilesOfNothing(t *testing.T) {
	if !math.IsNaN(median(nil)) || !math.IsNaN(quartiles(nil)) {
		t.Error("nothing has a median")
	}
	if got := median([]float64{1, 2, 3}); got != 2 {
		t.Errorf("median of 1, 2, 3 is %v", got)
	}
}
