package forward

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// heartbeat is how often each end says something.
	heartbeat = 100 * time.Millisecond
	// patience is how many heartbeats in a row may bring nothing.
	patience = 4
	// maxBatch is how many frames go into one write: two parts each, within IOV_MAX.
	maxBatch = 256
	// receiveBuffer is what one receive may bring, in bytes.
	receiveBuffer = 256 << 10
)

var errSilent = errors.New("nothing was heard for 400 ms")

// frame is something to send.
type frame interface {
	// encode appends a header to b and returns the payload that follows it.
	encode(b []byte) (head, payload []byte)
	// sent is called when the frame was written, or is dropped.
	sent()
}

// line is one end of a connection after its handshake: it writes what is queued,
// all that there is at once, says something at every heartbeat, and ends when the
// other end has said nothing for 400 ms. One goroutine of the owner reads.
type line struct {
	nc     net.Conn
	heard  atomic.Uint64 // grows with what is received
	paused atomic.Bool   // the owner does not read
	kick   chan struct{} // capacity 1: something is queued
	over   chan struct{} // closed by hangup

	mu     sync.Mutex
	queue  []frame
	closed bool // nothing is queued any more
	err    error

	heads []byte // the writer's
	vec   net.Buffers
}

func newLine(nc net.Conn) *line {
	return &line{nc: nc, kick: make(chan struct{}, 1), over: make(chan struct{}), heads: make([]byte, 0, maxBatch*HeaderSize)}
}

// Read implements io.Reader for the owner: what it gets is a sign of life.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.nc.Read(p)
	if n > 0 {
		l.heard.Add(1)
	}
	return n, err
}

// wake makes the writer look at the queue.
func (l *line) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// hangup ends the line for a reason: nothing that the kernel has queued is sent.
func (l *line) hangup(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = why
	if tcp, ok := l.nc.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0) //nolint:errcheck // a closed socket has nothing queued
	}
	l.nc.Close()
	close(l.over)
}

// reason is why the line was hung up.
func (l *line) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// run writes until the line is hung up; what is queued then is dropped.
func (l *line) run() {
	var watch sync.WaitGroup
	watch.Go(l.watch)
	var batch []frame
	for {
		select {
		case <-l.over:
		case <-l.kick:
		}
		l.mu.Lock()
		batch, l.queue = l.queue, batch[:0]
		ended := l.err != nil
		l.closed = l.closed || ended
		l.mu.Unlock()
		if !ended {
			l.write(batch)
		}
		for i, f := range batch {
			f.sent()
			batch[i] = nil
		}
		if ended {
			watch.Wait()
			return
		}
	}
}

func (l *line) write(batch []frame) {
	for len(batch) > 0 {
		part := batch[:min(len(batch), maxBatch)]
		batch = batch[len(part):]
		heads, vec := l.heads[:0], l.vec[:0]
		for _, f := range part {
			at := len(heads)
			var payload []byte
			heads, payload = f.encode(heads)
			vec = append(vec, heads[at:])
			if len(payload) > 0 {
				vec = append(vec, payload)
			}
		}
		l.vec = vec
		_, err := l.vec.WriteTo(l.nc) // which uses up l.vec
		clear(vec)
		l.vec = vec[:0]
		if err != nil {
			l.hangup(err)
			return
		}
	}
}

// watch sends heartbeats, and listens for the other end's.
func (l *line) watch() {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	var last uint64
	for silent := 0; ; silent++ {
		select {
		case <-l.over:
			return
		case <-tick.C:
		}
		if heard := l.heard.Load(); heard != last || l.paused.Load() {
			silent, last = 0, heard
		}
		if silent == patience {
			l.hangup(errSilent)
			return
		}
		l.mu.Lock()
		if len(l.queue) == 0 && !l.closed {
			l.queue = append(l.queue, ping{})
		}
		l.mu.Unlock()
		l.wake()
	}
}

// ping is a heartbeat.
type ping struct{}

func (ping) encode(b []byte) (head, payload []byte) {
	h := header{kind: kindPing}
	return h.encode(b, nil), nil
}

func (ping) sent() {}
