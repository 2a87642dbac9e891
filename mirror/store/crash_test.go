package store

import (
	"errors"
	"math/rand/v2"
	"testing"

	"lockstep/mirror/store/memfs"
)

// ways are how the machine goes down: with what chance of what is not durable to
// survive, or, if negative, without losing power.
var ways = []float64{0, 0.5, 1, -1}

// crashIn runs ops on a new store until the n-th change, crashes and checks. It
// reports whether there were that many changes. With creation, that of the
// store counts too.
func crashIn(t *testing.T, ops []crashOp, n int, keep float64, seed uint64, creation bool) bool {
	m := newCrashModel(t, seed)
	if creation {
		m.disk.CrashAt(n)
	}
	err := m.open()
	if !creation && err == nil {
		m.disk.CrashAt(n)
	}
	for i := 0; i < len(ops) && err == nil; i++ {
		err = ops[i].run(m)
	}
	if err != nil && !errors.Is(err, memfs.ErrCrashed) {
		t.Fatalf("%s: %v", names(ops), err)
	}
	down := err != nil
	if keep < 0 {
		m.disk.Kill()
	} else {
		m.disk.Crash(keep)
	}
	if err := m.reopen(keep >= 0); err != nil {
		t.Fatalf("%s, then a crash at change %d that keeps %v (seed %d): %v", names(ops), n, keep, seed, err)
	}
	return down
}

func names(ops []crashOp) (list []string) {
	for _, op := range ops {
		list = append(list, op.name)
	}
	return list
}

// TestEveryCrashPoint runs all sequences of three operations and crashes at every
// change in each of them, in every way.
func TestEveryCrashPoint(t *testing.T) {
	runs := 0
	for i := range len(crashOps) * len(crashOps) * len(crashOps) {
		a, b, c := i/len(crashOps)/len(crashOps), i/len(crashOps)%len(crashOps), i%len(crashOps)
		ops := []crashOp{crashOps[a], crashOps[b], crashOps[c]}
		for n, down := 1, true; down; n++ {
			for way, keep := range ways {
				down = crashIn(t, ops, n, keep, uint64(runs*len(ways)+way), false)
			}
			runs++
		}
	}
	t.Logf("%d crash points", runs)
}

// TestEveryCrashPointOfGrowth has a growth between all pairs of operations. What is asked
// for after a crash is the old size and the new one in turn.
func TestEveryCrashPointOfGrowth(t *testing.T) {
	with := append([]crashOp{growth}, crashOps...)
	seed := uint64(0)
	for _, before := range with {
		for _, after := range with {
			ops := []crashOp{before, growth, after}
			for n, down := 1, true; down; n++ {
				for _, keep := range ways {
					down = crashIn(t, ops, n, keep, seed, false)
					seed++
				}
				seed++ // or one way would always go with one size
			}
		}
	}
}

func TestEveryCrashPointOfCreation(t *testing.T) {
	for seed := range uint64(20) {
		for n, down := 1, true; down; n++ {
			for _, keep := range ways {
				down = crashIn(t, crashOps[:2], n, keep, seed, true)
			}
		}
	}
}

// TestRandomCrashes runs longer sequences, with crashes on the way and on opening.
func TestRandomCrashes(t *testing.T) {
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := newCrashModel(t, seed)
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var ops []crashOp
			m.disk.CrashAt(1 + r.IntN(60))
			var err error
			for len(ops) < 15 && err == nil {
				op := growth
				if i := r.IntN(len(crashOps) + 1); i < len(crashOps) {
					op = crashOps[i]
				}
				ops = append(ops, op)
				err = ops[len(ops)-1].run(m)
			}
			if err != nil && !errors.Is(err, memfs.ErrCrashed) {
				t.Fatalf("seed %d: %s: %v", seed, names(ops), err)
			}
			if err := m.crashAndCheck(r); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, names(ops), err)
			}
		}
	}
}

// crashAndCheck loses power, maybe again while the store is opened, and makes
// what is found what the model goes on from.
func (m *crashModel) crashAndCheck(r *rand.Rand) error {
	m.disk.Crash(r.Float64())
	m.disk.CrashAt(r.IntN(12))
	m.boot++
	if m.openAny() != nil {
		m.disk.Crash(r.Float64())
		m.mayBeClean = true // unless the first attempt got as far as saying otherwise
	} else {
		m.disk.CrashAt(0)
		m.disk.Kill()
		m.boot-- // reopen counts on
		m.mayBeClean = true
	}
	if err := m.reopen(true); err != nil {
		return err
	}
	return m.goOn()
}

func (m *crashModel) goOn() error {
	p := make([]byte, m.size)
	if err := m.s.ReadAt(p, 0); err != nil {
		return err
	}
	for i := range p[:m.size/SectorSize] {
		m.synced[i], m.since[i] = p[i*SectorSize], nil
	}
	meta := m.s.Meta()
	m.epoch, m.epochs = meta.Epoch, nil
	m.saving = false
	m.missed, m.saved = 0, false
	if set, err := m.s.OutOfSync(crashPeer); err == nil {
		m.saved = true
		for i := range m.size / SectorSize {
			if set.Has(i*SectorSize, 1) {
				m.missed |= 1 << i
			}
		}
	}
	return m.s.Update(func(meta *Meta) { meta.Lossy, meta.Complete = false, meta.Epoch > 0 })
}
