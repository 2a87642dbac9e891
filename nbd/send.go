package nbd

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// sender sends a connection's replies. Whoever completes requests queues their
// replies and, unless somebody is at it, sends all that is queued with one
// non-blocking call. What the socket does not take at once is left to the
// connection's writer goroutine, so a client that does not read delays nobody.
//
//	idle --flush--> sending --all sent--> idle
//	                sending --socket full--> blocked (the writer's) --all sent--> idle
//	any state --error--> failed: replies are dropped
type sender struct {
	mu     sync.Mutex
	queue  []*Request // encoded, not yet being sent
	spare  []*Request // the queue's other half
	corked bool       // the reader will flush when Submit has returned
	busy   bool       // somebody is sending or blocked
	failed bool       // nothing can be sent any more

	// Owned by whoever set busy.
	sending []*Request
	out     transfer
	errno   syscall.Errno

	tryFn   func(fd uintptr)      // one attempt
	drainFn func(fd uintptr) bool // attempts until all is sent
	blocked chan struct{}         // capacity 1: hands busy to the writer
}

func (c *conn) initSender() {
	s := &c.send
	s.blocked = make(chan struct{}, 1)
	s.tryFn = func(fd uintptr) { c.sendOnce(fd) }
	s.drainFn = func(fd uintptr) bool {
		s.errno = 0
		for len(s.sending) > 0 && s.errno == 0 {
			c.sendOnce(fd)
		}
		return s.errno != unix.EAGAIN
	}
}

// enqueue encodes the replies of completed requests and queues them.
func (c *conn) enqueue(batch []*Request) {
	for _, r := range batch {
		if r.Err != nil && errors.Is(r.Err, ErrHangup) {
			c.hangup() // before anything of the batch is sent
		}
		encodeReply(r, c.structured)
	}
	s := &c.send
	s.mu.Lock()
	failed := s.failed
	if !failed {
		s.queue = append(s.queue, batch...)
	}
	s.mu.Unlock()
	if failed {
		c.release(batch)
	}
}

// cork makes flush wait for uncork, so that replies completed inline by Submit
// leave together.
func (c *conn) cork() {
	c.send.mu.Lock()
	c.send.corked = true
	c.send.mu.Unlock()
}

func (c *conn) uncork() {
	c.send.mu.Lock()
	c.send.corked = false
	c.send.mu.Unlock()
	c.flush()
}

// flush sends what is queued, unless somebody is sending already: that one will
// find it.
func (c *conn) flush() {
	s := &c.send
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.busy && !s.corked && len(s.queue) > 0 {
		c.takeLocked()
		s.mu.Unlock()
		s.errno = 0
		if err := c.raw.Control(s.tryFn); err != nil {
			s.errno = unix.EBADF
		}
		left := len(s.sending) > 0 && (s.errno == 0 || s.errno == unix.EAGAIN)
		s.mu.Lock()
		if left {
			s.blocked <- struct{}{}
			return
		}
		c.sentLocked()
	}
}

// takeLocked moves the queue to the one who is going to send it.
func (c *conn) takeLocked() {
	s := &c.send
	s.busy = true
	s.sending, s.queue, s.spare = s.queue, s.spare[:0], s.queue[:0]
}

// sentLocked ends a turn of sending: all is sent or the connection failed.
func (c *conn) sentLocked() {
	s := &c.send
	s.busy = false
	if s.errno == 0 {
		return
	}
	s.failed = true
	c.gone.Store(true)
	c.stopReading() // before room is made: what the client sent last is better left alone
	dropped := append(s.sending, s.queue...)
	s.sending, s.queue = nil, nil
	c.release(dropped)
}

// sendOnce makes one attempt and releases what was sent completely.
func (c *conn) sendOnce(fd uintptr) {
	s := &c.send
	s.out.reset()
	for _, r := range s.sending {
		s.out.add(r.reply)
	}
	n, errno := s.out.send(fd)
	s.errno = errno
	if errno != 0 {
		return
	}
	done := 0
	for done < len(s.sending) && n >= len(s.sending[done].reply) {
		n -= len(s.sending[done].reply)
		done++
	}
	if n > 0 {
		s.sending[done].reply = s.sending[done].reply[n:]
	}
	c.release(s.sending[:done])
	s.sending = s.sending[done:]
}

// write is the writer goroutine: it finishes what would have blocked others.
// It ends when quit is closed.
func (c *conn) write(quit <-chan struct{}) {
	s := &c.send
	for {
		select {
		case <-quit:
			return
		case <-s.blocked:
		}
		for {
			if err := c.raw.Write(s.drainFn); err != nil {
				s.errno = unix.ETIMEDOUT
			}
			s.mu.Lock()
			c.sentLocked()
			more := len(s.queue) > 0
			if more {
				c.takeLocked()
			}
			s.mu.Unlock()
			if !more {
				break
			}
		}
	}
}

// release gives back requests that need no more sending.
func (c *conn) release(batch []*Request) {
	var bytes int64
	for i, r := range batch {
		bytes += r.cost
		putRequest(r)
		batch[i] = nil
	}
	c.flow.release(len(batch), bytes)
}
