package mirror

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Latencies are counted in buckets that are a sixteenth of a power of two wide,
// from 1 us (1024 ns) to 18 minutes: an error of at most 6%, in 2 KiB of counters
// that a write touches once.
const (
	subBuckets = 16
	subShift   = 4
	unitShift  = 10 // ns in a unit
	maxUnits   = 1<<30 - 1
	buckets    = (30 - subShift + 1) * subBuckets
)

func bucketOf(latency time.Duration) int {
	v := min(uint64(max(latency, 0))>>unitShift, maxUnits)
	if v < subBuckets {
		return int(v)
	}
	e := bits.Len64(v) - subShift - 1
	return (e+1)<<subShift + int(v>>e)&(subBuckets-1)
}

// bucketEnd is the latency that a bucket ends before.
func bucketEnd(i int) time.Duration {
	e, v := i>>subShift-1, uint64(i&(subBuckets-1))
	if e < 0 {
		return time.Duration(v+1) << unitShift
	}
	return time.Duration((v+subBuckets+1)<<e) << unitShift
}

// histogram counts latencies; all goroutines may add to it at once.
type histogram [buckets]atomic.Uint32

func (h *histogram) add(latency time.Duration) { h[bucketOf(latency)].Add(1) }

// drain moves what was counted to b and returns how many there were.
func (h *histogram) drain(b *baseline) (n int64) {
	for i := range h {
		if h[i].Load() == 0 {
			continue // most are; a load is cheaper than a swap
		}
		count := h[i].Swap(0)
		b.count[i] += float64(count)
		b.weight += float64(count)
		n += int64(count)
	}
	b.fade(baselineWeight)
	return n
}

// baseline is the latencies of writes without resync, older ones counting less.
type baseline struct {
	count  [buckets]float64
	weight float64
}

func (b *baseline) known() bool { return b.weight >= knownWrites }

// fade makes what is known count as at most that many writes.
func (b *baseline) fade(writes float64) {
	if b.weight <= writes {
		return
	}
	share := writes / b.weight
	b.weight = writes
	for i := range b.count {
		b.count[i] *= share
	}
}

func (b *baseline) p99() time.Duration {
	beyond := b.weight / 100
	for i := buckets - 1; i >= 0; i-- {
		if beyond -= b.count[i]; beyond < 0 {
			return bucketEnd(i)
		}
	}
	return 0
}
