package sweep

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// runLoad loads a device for a second of virtual time.
func runLoad(t *testing.T, dev Device, depth int, rate float64) (m measured, l *ledger, err error) {
	t.Helper()
	l, err = newLedger(7, dev.Size(), 4096, depth)
	if err != nil {
		t.Fatal(err)
	}
	m, err = (&load{
		dev: dev, ledger: l, rate: rate, warmUp: 100 * time.Millisecond, duration: time.Second, sleep: time.Sleep,
	}).run(context.Background())
	return m, l, err
}

func steady(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// stallOnce makes one write in the middle of the window take 100 ms.
func stallOnce(usual time.Duration) func() time.Duration {
	began := time.Now()
	var stalled atomic.Bool
	return func() time.Duration {
		if time.Since(began) > 500*time.Millisecond && stalled.CompareAndSwap(false, true) {
			return 100 * time.Millisecond
		}
		return usual
	}
}

func TestClosedLoop(t *testing.T) {
	for _, depth := range []int{1, 8} {
		synctest.Test(t, func(t *testing.T) {
			dev := newFakeDevice(1<<20, steady(time.Millisecond))
			m, l, err := runLoad(t, dev, depth, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := m.latency.TotalCount(), int64(depth*1000); got != want {
				t.Errorf("depth %d: %d writes, want %d", depth, got, want)
			}
			if p50, iops := percentile(m.latency, 50), m.iops(); p50 < 999 || p50 > 1001 || iops < float64(depth)*999 || iops > float64(depth)*1001 {
				t.Errorf("depth %d: p50 %v us, %v IOPS", depth, p50, iops)
			}
			if n, err := l.check(context.Background(), dev); err != nil || n == 0 {
				t.Errorf("depth %d: read back %d blocks: %v", depth, n, err)
			}
		})
	}
}

// A stall is one write in ten thousand to a closed loop, and what it delayed
// was never sent; to an open loop it is every write that was due meanwhile.
func TestOpenLoopHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed, _, err := runLoad(t, newFakeDevice(1<<20, stallOnce(100*time.Microsecond)), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		open, _, err := runLoad(t, newFakeDevice(1<<20, stallOnce(100*time.Microsecond)), 1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if p := percentile(closed.latency, 99.9); p > 200 {
			t.Errorf("closed loop: p99.9 = %v us: the stall is one write of thousands there", p)
		}
		if p := percentile(open.latency, 99.9); p < 95_000 {
			t.Errorf("open loop: p99.9 = %v us, want about 100 ms", p)
		}
		if p := percentile(open.latency, 95); p < 40_000 {
			t.Errorf("open loop: p95 = %v us, want the 100 writes that were due in the stall", p)
		}
		if open.late != 0 || open.latency.TotalCount() != 1000 {
			t.Errorf("open loop: %d writes, %d late; want 1000 and 0", open.latency.TotalCount(), open.late)
		}
	})
}

func TestOpenLoopSaysWhenTheRateIsTooHigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 2 writers of 10 ms make 200/s of the 1000/s that are asked for.
		m, _, err := runLoad(t, newFakeDevice(1<<20, steady(10*time.Millisecond)), 2, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if total := m.latency.TotalCount(); total != 1000 {
			t.Errorf("%d writes were due, %d are recorded", 1000, total)
		}
		if m.late < 550 || m.late > 700 {
			t.Errorf("%d of 1000 writes never started, want about 670 (warm-up's backlog first)", m.late)
		}
		if iops := m.iops(); iops < 150 || iops > 220 {
			t.Errorf("%v IOPS, want about 200", iops)
		}
		trial := Trial{Late: m.late, Writes: m.latency.TotalCount()}
		link := Config{}.Link(0)
		if trial.judge(link); trial.Fidelity != RateMissed {
			t.Errorf("verdict %v (%s)", trial.Fidelity, trial.Why)
		}
	})
}

func TestWriteErrorEndsTheLoad(t *testing.T) {
	for _, rate := range []float64{0, 1000} {
		synctest.Test(t, func(t *testing.T) {
			broken := errors.New("broken")
			dev := newFakeDevice(1<<20, steady(time.Millisecond))
			dev.fail = broken
			if _, _, err := runLoad(t, dev, 4, rate); !errors.Is(err, broken) {
				t.Errorf("rate %v: error %v", rate, err)
			}
		})
	}
}

func TestVolumeTooSmallForTheWriters(t *testing.T) {
	if _, err := newLedger(1, 3*4096, 4096, 4); err == nil {
		t.Error("4 writers share 3 blocks")
	}
}

// Each write belongs to one writer, and all blocks to some writer.
func TestBlocksAreSharedOut(t *testing.T) {
	l, err := newLedger(1, 10*4096, 4096, 3)
	if err != nil {
		t.Fatal(err)
	}
	owner := map[int64]int{}
	for w := range l.writers {
		for i := range l.owned(w) {
			block := l.block(w, i)
			if other, taken := owner[block]; taken {
				t.Errorf("block %d belongs to %d and %d", block, other, w)
			}
			owner[block] = w
		}
	}
	if len(owner) != 10 {
		t.Errorf("owners %v, want one for each of 10 blocks", owner)
	}
}

// The real sleep is in time and not early.
func TestSleepIsNotEarly(t *testing.T) {
	defer precise()()
	for _, d := range []time.Duration{50 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		began := time.Now()
		sleep(d)
		took := time.Since(began)
		if took < d {
			t.Errorf("slept %v of %v", took, d)
		}
		t.Logf("sleep(%v) took %v", d, took)
	}
}

func BenchmarkFill(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(formatBytes(int64(size)), func(b *testing.B) {
			s, p := newStamper(1, size), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := range b.N {
				s.fill(p, int64(i)*int64(size), uint64(i), 0)
			}
		})
	}
}
