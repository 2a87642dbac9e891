package tun

import (
	"math"
	"testing"
	"time"
)

func TestFateKeepsOrderAndRate(t *testing.T) {
	base := time.Now()
	for name, tc := range map[string]struct {
		conf Config
		want time.Duration // when the last of 1000 packets of 1000 bytes that arrive at once is due
	}{
		"delay alone":            {Config{Delay: time.Millisecond}, time.Millisecond},
		"8 Mbit/s":               {Config{Delay: time.Millisecond, RateBits: 8e6}, time.Second + time.Millisecond},
		"jitter never overtakes": {Config{Delay: time.Millisecond, Jitter: 100 * time.Microsecond, Seed: 1}, 0},
	} {
		var f fate
		last := base
		for range 1000 {
			due := f.due(&tc.conf, base, 1000)
			if due.Before(last) {
				t.Errorf("%s: a packet is due before the one before it", name)
			}
			last = due
		}
		if got := last.Sub(base); tc.want != 0 && (got-tc.want).Abs() > time.Microsecond {
			t.Errorf("%s: the last is due after %v, want %v", name, got, tc.want)
		}
	}
}

func TestLossIsAsAsked(t *testing.T) {
	f, c := fate{}, &Config{Loss: 0.1, Seed: 7}
	lost := 0
	const n = 100000
	for range n {
		if f.lost(c) {
			lost++
		}
	}
	// Five standard deviations of the binomial distribution.
	if off := math.Abs(float64(lost) - 0.1*n); off > 5*math.Sqrt(n*0.1*0.9) {
		t.Errorf("%d of %d lost at 10 %%", lost, n)
	}
}

func TestQueueIsBoundedAndInOrder(t *testing.T) {
	var q queue
	now := time.Now()
	pushed := 0
	for q.push(maxPacket, now.Add(time.Duration(pushed))) {
		pushed++
	}
	if pushed != MaxQueue/maxPacket {
		t.Errorf("%d packets fit, want %d", pushed, MaxQueue/maxPacket)
	}
	if q.due(now.Add(-1)) != nil {
		t.Error("a packet came before it was due")
	}
	for i := range pushed {
		if wait, any := q.wait(now); !any || wait != time.Duration(i) {
			t.Fatalf("packet %d waits %v, %v", i, wait, any)
		}
		q.pop()
	}
	if _, any := q.wait(now); any || q.bytes != 0 {
		t.Errorf("an empty queue holds %d bytes", q.bytes)
	}
}

// TestSmallPacketsCostMemoryToo: a flood of them must not grow beyond MaxQueue.
func TestSmallPacketsCostMemoryToo(t *testing.T) {
	for _, size := range []int{1, 60, 2048, 2049, 9000, 40000} {
		var q queue
		held := 0
		for q.push(size, time.Now()) {
			held += cap(q.packets[len(q.packets)-1].data)
		}
		if held > MaxQueue || held < MaxQueue-maxPacket {
			t.Errorf("packets of %d bytes: a full queue holds buffers of %d bytes, want nearly %d", size, held, MaxQueue)
		}
		for _, any := q.wait(time.Now()); any; _, any = q.wait(time.Now()) {
			q.pop()
		}
		if q.bytes != 0 {
			t.Errorf("packets of %d bytes: an empty queue counts %d bytes", size, q.bytes)
		}
	}
}

func TestSteadyStreamAllocatesNothing(t *testing.T) {
	var q queue
	now := time.Now()
	for _, size := range []int{64, 4200, 20000, maxPacket} {
		turn := func() {
			for range 4 {
				q.space()
				q.push(size, now)
			}
			for range 4 {
				q.pop()
			}
		}
		turn()
		if n := testing.AllocsPerRun(100, turn); n > 0 {
			t.Errorf("packets of %d bytes: %v allocations", size, n)
		}
	}
}

func TestConfigsThatCantBeKeptAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"negative":  {Delay: -1},
		"loss of 2": {Delay: time.Second, Loss: 2},
	} {
		if c.validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
