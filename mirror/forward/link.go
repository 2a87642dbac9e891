package forward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"lockstep/mirror"
)

// link is one connection to a primary, and the ops that are with it.
type link struct {
	*line
	front *Front

	opsMu sync.Mutex
	ops   map[uint64]*entry // by serial, which is the tag
	done  []*mirror.Op      // answered, not given back yet; the reader's
}

// serve makes the connection the Front's leg until it ends. Then nothing touches its
// ops any more, and those without an answer are the Front's again.
func (k *link) serve(r *remote) error {
	f := k.front
	me := &leg{link: k}
	f.mu.Lock()
	if f.remote != r {
		f.mu.Unlock()
		return context.Canceled
	}
	f.beginLocked(me)
	var writer sync.WaitGroup
	writer.Go(k.line.run)
	f.conf.Log.Debug("forwarding", "volume", f.conf.Volume, "to", r.addr)
	k.hangup(k.read())
	k.deliver()
	writer.Wait()

	f.mu.Lock()
	if f.leg == me {
		f.leg, f.lost = nil, time.Now()
	}
	f.mu.Unlock()
	k.opsMu.Lock()
	left := make([]*entry, 0, len(k.ops))
	for _, e := range k.ops {
		e.unsure = true
		left = append(left, e)
	}
	k.opsMu.Unlock()
	slices.SortFunc(left, func(a, b *entry) int { return int(a.serial) - int(b.serial) })
	f.again(left)
	return k.reason()
}

// queue puts ops in line. The Front's lock is held, so that the order is that of
// its serials, and none comes after the Front left.
func (k *link) queue(ops []*mirror.Op) {
	k.opsMu.Lock()
	for _, op := range ops {
		e := op.Tag.(*entry) //nolint:errcheck // the Front set it
		k.ops[e.serial] = e
	}
	k.opsMu.Unlock()
	k.mu.Lock()
	if !k.closed {
		for _, op := range ops {
			k.line.queue = append(k.line.queue, op.Tag.(*entry)) //nolint:errcheck // likewise
		}
	}
	k.mu.Unlock()
	k.wake()
}

// encode implements frame: the op as a request.
func (e *entry) encode(b []byte) (head, payload []byte) {
	op := e.op
	h := header{kind: kindOfOp[op.Kind], tag: e.serial, offset: uint64(op.Off), length: uint32(op.Len),
		number: e.origin.Number, lowest: e.origin.Lowest}
	if op.FUA {
		h.flags |= flagFUA
	}
	if op.NoHole {
		h.flags |= flagNoHole
	}
	if e.origin.Retry {
		h.flags |= flagRetry
	}
	if op.Kind == mirror.Write {
		payload = op.Data
	}
	return h.encode(b, payload), payload
}

// sent implements frame. The op may be anybody's by now.
func (e *entry) sent() {}

// read takes answers until the connection ends.
func (k *link) read() error {
	in := bufio.NewReaderSize(k.line, receiveBuffer)
	var h header
	for {
		if in.Buffered() < HeaderSize {
			k.deliver()
		}
		b, err := in.Peek(HeaderSize)
		if err != nil {
			return err
		}
		if err := h.decode(b); err != nil {
			return err
		}
		in.Discard(HeaderSize) //nolint:errcheck // it was peeked
		switch h.kind {
		case kindPing:
		case kindReply:
			if err := k.reply(&h, in); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a primary sent a %v", ErrCorrupt, h.kind)
		}
	}
}

// reply takes one answer in.
func (k *link) reply(h *header, in *bufio.Reader) error {
	k.opsMu.Lock()
	e := k.ops[h.tag]
	k.opsMu.Unlock()
	if e == nil {
		return fmt.Errorf("%w: a reply to the unknown request %d", ErrCorrupt, h.tag)
	}
	op := e.op
	reading := op.Kind == mirror.Read && h.errno == 0 && h.flags&flagAgain == 0
	data := op.Data
	if !reading {
		if h.payload > maxErrorText {
			return fmt.Errorf("%w: %d bytes in reply to a %v", ErrCorrupt, h.payload, op.Kind)
		}
		data = make([]byte, h.payload)
	} else if int(h.payload) != len(data) {
		return fmt.Errorf("%w: %d bytes in reply to a read of %d", ErrCorrupt, h.payload, len(data))
	}
	if in.Buffered() < len(data) {
		k.deliver()
	}
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	if err := h.verify(data); err != nil {
		return err
	}
	switch {
	case h.flags&flagAgain != 0:
		op.Err = mirror.ErrDeposed
	case h.flags&flagForgotten != 0:
		op.Err = fmt.Errorf("the primary: %w", mirror.ErrForgotten)
	case h.errno != 0:
		op.Err = &remoteError{text: string(data), errno: syscall.Errno(h.errno)}
	}
	k.opsMu.Lock()
	delete(k.ops, h.tag)
	k.opsMu.Unlock()
	k.done = append(k.done, op)
	return nil
}

// deliver gives back what was answered.
func (k *link) deliver() {
	if len(k.done) == 0 {
		return
	}
	k.front.Complete(k.done)
	clear(k.done)
	k.done = k.done[:0]
}

// remoteError is an error of the primary.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return "the primary: " + e.text }

// Unwrap returns the errno.
func (e *remoteError) Unwrap() error { return e.errno }
