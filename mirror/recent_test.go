package mirror

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func rangeAt(i int) Range { return Range{int64(i) * 512, 512} }

func checkRecent(t *testing.T, r *recent, when string, want ...Range) {
	t.Helper()
	if got, ok := r.ranges(); !ok || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v; want %v", when, got, ok, want)
	}
}

func TestRecentHoldsWhatIsAboveTheWatermark(t *testing.T) {
	var r recent
	for i := range 5 {
		r.add(uint64(i+1), rangeAt(i))
	}
	r.trim(2)
	checkRecent(t, &r, "above 2", rangeAt(2), rangeAt(3), rangeAt(4))
	r.copied(rangeAt(9))
	r.keep()
	r.add(1, rangeAt(7))
	r.trim(1)
	checkRecent(t, &r, "of the primary before", rangeAt(9), rangeAt(2), rangeAt(3), rangeAt(4))
	r.add(2, rangeAt(8))
	r.finish()
	checkRecent(t, &r, "after the finish", rangeAt(8))
}

// TestRecentIsBounded: what overflowed is known to be forgotten, until the watermark
// passes it or all copies were made to agree.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	for i := range maxRecent + 1 {
		r.add(uint64(i+1), rangeAt(i))
	}
	if _, ok := r.ranges(); ok {
		t.Error("nothing is missing though one more was added than it holds")
	}
	r.trim(1)
	if got, ok := r.ranges(); !ok || len(got) != maxRecent {
		t.Errorf("%d ranges, %v, when the watermark passed the forgotten one; want %d", len(got), ok, maxRecent)
	}
	r.add(maxRecent+2, rangeAt(0))
	r.keep()
	r.add(1, rangeAt(0))
	r.trim(1)
	if _, ok := r.ranges(); ok {
		t.Error("the next primary's watermark brought back what was forgotten of the one before")
	}
	r.finish()
	checkRecent(t, &r, "after the finish")
	for i := range maxRecent + 1 {
		r.copied(rangeAt(i))
	}
	if _, ok := r.ranges(); ok {
		t.Error("nothing is missing though one more was copied than it holds")
	}
	if len(r.copies) > maxRecent || cap(r.writes) > 4*maxRecent {
		t.Errorf("%d copies and room for %d writes", len(r.copies), cap(r.writes))
	}
}

// TestRecentAgreesWithAList does at random what a follower does.
func TestRecentAgreesWithAList(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	var r recent
	var want []sentRange
	seq, watermark := uint64(0), uint64(0)
	for range 100_000 {
		if rng.IntN(3) > 0 {
			seq++
			r.add(seq, rangeAt(int(seq)))
			want = append(want, sentRange{seq, rangeAt(int(seq))})
			continue
		}
		watermark = min(seq, watermark+rng.Uint64N(8))
		r.trim(watermark)
		want = slices.DeleteFunc(want, func(s sentRange) bool { return s.seq <= watermark })
		if rng.IntN(100) > 0 {
			continue
		}
		var list []Range
		for _, s := range want {
			list = append(list, s.Range)
		}
		if checkRecent(t, &r, "at random", list...); t.Failed() {
			t.Fatalf("seed %d, seq %d, watermark %d", seed, seq, watermark)
		}
	}
}
