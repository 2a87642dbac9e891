package mirror

import (
	"sync"

	"golang.org/x/sys/unix"
)

// maxVector is how many buffers go out in one sendmsg: 64 writes.
const maxVector = 128

// maxSend is about how many bytes go out in one sendmsg, so that the first of
// them are on their way while later ones are copied.
const maxSend = 1 << 20

// outbox sends frames over one connection, in the order in which they were put.
// Whoever kicks it sends what there is, without sleeping; if another goroutine
// is at it already, that one takes the new frames along. When the socket is full
// the outbox's own goroutine takes over until it has caught up. It is bounded by
// what the primary has in flight.
type outbox struct {
	sock  *socket
	full  chan struct{} // capacity 1: the outbox's goroutine is to go on
	fail  func(error)   // called once, by the goroutine that could not send
	iovs  []unix.Iovec  // owned by the sending goroutine
	ended sync.WaitGroup

	mu      sync.Mutex
	idle    sync.Cond // sending became false
	frames  []frame
	sent    int // bytes of the first frame that are gone
	sending bool
	closed  bool
}

func newOutbox(sock *socket, fail func(error)) *outbox {
	o := &outbox{sock: sock, fail: fail, full: make(chan struct{}, 1), iovs: make([]unix.Iovec, 0, maxVector)}
	o.idle.L = &o.mu
	o.ended.Go(o.run)
	return o
}

func (o *outbox) put(frames ...frame) {
	o.mu.Lock()
	if !o.closed {
		o.frames = append(o.frames, frames...)
	}
	o.mu.Unlock()
}

// kick sends what there is and what fits now.
func (o *outbox) kick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending || o.closed || len(o.frames) == 0 {
		return
	}
	o.sending = true
	if o.drainLocked(o.sock.trySend) {
		o.sending = false
		o.idle.Broadcast()
		return
	}
	o.full <- struct{}{} // the goroutine below sends on; never blocks: only the sender signals
}

func (o *outbox) run() {
	for range o.full {
		o.mu.Lock()
		o.drainLocked(o.sock.send)
		o.sending = false
		o.idle.Broadcast()
		o.mu.Unlock()
	}
}

// drainLocked sends until nothing is left, and says so, or until nothing fits.
// It gives the lock back while it sends.
func (o *outbox) drainLocked(send func([]unix.Iovec) (int, error)) bool {
	for len(o.frames) > 0 && !o.closed {
		o.gatherLocked()
		o.mu.Unlock()
		n, err := send(o.iovs)
		if err != nil {
			o.fail(err)
		}
		o.mu.Lock()
		if err != nil {
			o.closed = true
			return true
		}
		if n == 0 {
			return false
		}
		o.advanceLocked(n)
	}
	return true
}

func (o *outbox) gatherLocked() {
	o.iovs = o.iovs[:0]
	skip, size := o.sent, 0
	for _, f := range o.frames {
		if len(o.iovs)+2 > maxVector || size >= maxSend {
			return
		}
		if skip < len(f.header) {
			o.iovs = append(o.iovs, iovec(f.header[skip:]))
			size += len(f.header) - skip
			skip = 0
		} else {
			skip -= len(f.header)
		}
		if skip < len(f.payload) {
			o.iovs = append(o.iovs, iovec(f.payload[skip:]))
			size += len(f.payload) - skip
		}
		skip = 0
	}
}

func (o *outbox) advanceLocked(n int) {
	n += o.sent
	done := 0
	for done < len(o.frames) {
		size := len(o.frames[done].header) + len(o.frames[done].payload)
		if n < size {
			break
		}
		n -= size
		done++
	}
	o.sent = n
	rest := copy(o.frames, o.frames[done:])
	clear(o.frames[rest:])
	o.frames = o.frames[:rest]
}

// close throws away what is unsent and returns when no goroutine uses the
// outbox or any frame. The connection must be closed first.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	for o.sending {
		o.idle.Wait()
	}
	o.frames = nil
	close(o.full)
	o.mu.Unlock()
	o.ended.Wait()
}
