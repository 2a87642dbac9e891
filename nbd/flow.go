package nbd

import "sync/atomic"

// flow bounds what a connection has in flight: requests and buffer bytes from
// the moment they were received until their replies were sent. Only the reader
// adds and waits; any goroutine releases.
type flow struct {
	maxRequests, maxBytes int64
	memory                *atomic.Int64 // bytes of all connections
	maxMemory             int64

	requests, bytes atomic.Int64
	waiting         atomic.Bool
	wake            chan struct{} // capacity 1
}

// room reports whether a request of n bytes fits. One always does: a single
// large request must work, and a connection must get on when others have used
// up the server's memory.
func (f *flow) room(n int64) bool {
	requests := f.requests.Load()
	return requests == 0 ||
		requests < f.maxRequests && f.bytes.Load()+n <= f.maxBytes && f.memory.Load()+n <= f.maxMemory
}

func (f *flow) add(n int64) {
	f.requests.Add(1)
	f.bytes.Add(n)
	f.memory.Add(n)
}

func (f *flow) release(requests int, n int64) {
	f.memory.Add(-n)
	f.bytes.Add(-n)
	f.requests.Add(-int64(requests))
	if f.waiting.Load() {
		f.interrupt()
	}
}

// interrupt makes wait look at its condition again.
func (f *flow) interrupt() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// wait blocks until cond holds; it is looked at after every release and
// interrupt.
func (f *flow) wait(cond func() bool) {
	f.waiting.Store(true)
	for !cond() {
		<-f.wake
	}
	f.waiting.Store(false)
}
