package tun

import (
	"math/rand/v2"
	"time"
)

// sizes are those of the buffers: most of what waits are acknowledgements and
// small writes, and a buffer for the largest packet each would cost a gigabyte.
// The last one is what a packet of unknown size is read into.
var sizes = [...]int{2 << 10, 8 << 10, maxPacket}

// queue is a FIFO of packets with the times at which they are due. Buffers are
// used again, so a steady stream allocates nothing.
type queue struct {
	packets []packet // from head on
	head    int
	bytes   int // of their buffers: what they cost, not what they hold
	free    [len(sizes)][][]byte
}

type packet struct {
	data []byte
	due  time.Time
}

// class is the smallest size of buffer for n bytes.
func class(n int) int {
	c := 0
	for sizes[c] < n {
		c++
	}
	return c
}

// space is a buffer that the next packet can be read into.
func (q *queue) space() []byte {
	largest := len(sizes) - 1
	if len(q.free[largest]) == 0 {
		q.free[largest] = append(q.free[largest], make([]byte, maxPacket))
	}
	return q.free[largest][len(q.free[largest])-1]
}

// push keeps the n bytes in space until due; false if the queue is full.
func (q *queue) push(n int, due time.Time) bool {
	c := class(n)
	if q.bytes+sizes[c] > MaxQueue {
		return false
	}
	read := q.space()
	buf := q.take(c)
	if c < len(sizes)-1 {
		copy(buf, read[:n])
	}
	q.packets = append(q.packets, packet{buf[:n], due})
	q.bytes += sizes[c]
	return true
}

// take is a buffer of class c; of the last one, it is what space returned.
func (q *queue) take(c int) []byte {
	n := len(q.free[c])
	if n == 0 {
		return make([]byte, sizes[c])
	}
	buf := q.free[c][n-1]
	q.free[c] = q.free[c][:n-1]
	return buf
}

// due is the first packet if its time has come, or nil.
func (q *queue) due(now time.Time) []byte {
	if q.head == len(q.packets) || q.packets[q.head].due.After(now) {
		return nil
	}
	return q.packets[q.head].data
}

// maxFree bounds the free buffers of each size.
const maxFree = 256

// pop forgets the first packet.
func (q *queue) pop() {
	data := q.packets[q.head].data
	q.bytes -= cap(data)
	if c := class(cap(data)); len(q.free[c]) < maxFree {
		q.free[c] = append(q.free[c], data[:cap(data)])
	}
	q.packets[q.head] = packet{}
	if q.head++; q.head == len(q.packets) {
		q.packets, q.head = q.packets[:0], 0
	} else if q.head > 1024 && q.head > len(q.packets)/2 {
		rest := copy(q.packets, q.packets[q.head:])
		clear(q.packets[rest:])
		q.packets, q.head = q.packets[:rest], 0
	}
}

// wait is how long until the first packet is due, if there is one.
func (q *queue) wait(now time.Time) (time.Duration, bool) {
	if q.head == len(q.packets) {
		return 0, false
	}
	return q.packets[q.head].due.Sub(now), true
}

// fate decides what happens to packets: lost or due when.
type fate struct {
	rng     *rand.Rand
	seed    uint64
	free    time.Time // when the line has sent what came before
	lastDue time.Time
}

func (f *fate) random(c *Config) *rand.Rand {
	if f.rng == nil || f.seed != c.Seed {
		f.rng, f.seed = rand.New(rand.NewPCG(c.Seed, 0)), c.Seed
	}
	return f.rng
}

func (f *fate) lost(c *Config) bool { return c.Loss > 0 && f.random(c).Float64() < c.Loss }

// due is when a packet of n bytes that arrived now leaves the line.
func (f *fate) due(c *Config, now time.Time, n int) time.Time {
	sent := now
	if c.RateBits > 0 {
		if f.free.After(sent) {
			sent = f.free
		}
		sent = sent.Add(time.Duration(float64(n) * 8 / float64(c.RateBits) * float64(time.Second)))
		f.free = sent
	}
	due := sent.Add(c.Delay)
	if c.Jitter > 0 {
		due = due.Add(time.Duration(f.random(c).NormFloat64() * float64(c.Jitter)))
	}
	if due.Before(f.lastDue) {
		due = f.lastDue
	}
	f.lastDue = due
	return due
}
