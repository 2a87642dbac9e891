package mirror

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
	"lockstep/mirror/wire"
)

// TestComparisonFindsEveryDifference compares two stores that were written at random, with
// holes and zeroes that are data: each differing byte is found, and no block in vain.
func TestComparisonFindsEveryDifference(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		p := &pair{t: t}
		p.newReplica(nil)
		p.connect(wire.Hello{Size: peerSize, ID: volumeA, Session: reignOne}, 5)
		ours, err := store.Open(store.Options{Path: "/ours", Size: peerSize, FS: memfs.New(2), Region: 64 << 10, Block: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for range rng.IntN(12) {
			scribble(t, rng, ours, p.store)
		}
		c := &Copy{Kind: Compare, Range: Range{0, peerSize}}
		compareStores(t, p, NewComparison(c), ours)
		checkDiffers(t, c.Differs, ours, p.store)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// scribble changes one of the stores, or both alike.
func scribble(t *testing.T, rng *rand.Rand, a, b *store.Store) {
	t.Helper()
	first := rng.Int64N(peerSize / 512)
	off, data := first*512, bytes.Repeat([]byte{byte(rng.IntN(3))}, int(min(1+rng.Int64N(300), peerSize/512-first))*512)
	for i, s := range []*store.Store{a, b} {
		var err error
		switch which := rng.IntN(5); {
		case which == i:
		case which == 4:
			err = s.Zero(off, int64(len(data)), rng.IntN(2) == 0)
		default:
			err = s.WriteAt(data, off)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func compareStores(t *testing.T, p *pair, c *Comparison, ours Store) {
	t.Helper()
	for range 10_000 {
		h, more, err := c.Next(ours)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
		p.forward(p.peer.AppendSum(nil, c, h))
		if err := c.Check(ours); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not end")
}

// checkDiffers compares all that there is.
func checkDiffers(t *testing.T, differs []Range, a, b *store.Store) {
	t.Helper()
	x, y := make([]byte, peerSize), make([]byte, peerSize)
	if err := a.ReadAt(x, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.ReadAt(y, 0); err != nil {
		t.Fatal(err)
	}
	var end int64
	for _, r := range append(differs, Range{peerSize, 0}) {
		if r.Off < end || r.end() > peerSize {
			t.Errorf("%v is out of order or outside the volume", r)
		}
		if !bytes.Equal(x[end:r.Off], y[end:r.Off]) {
			t.Errorf("a difference between %d and %d was not found", end, r.Off)
		}
		if r.Len > 0 && bytes.Equal(x[r.Off:r.end()], y[r.Off:r.end()]) {
			t.Errorf("%v does not differ", r)
		}
		end = r.end()
	}
}
