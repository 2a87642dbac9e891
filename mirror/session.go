package mirror

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"lockstep/mirror/wire"
)

// session is one primary's connection to a replica. One goroutine receives and
// applies; a second one syncs, so that a flush does not hold up later writes.
//
// Cost: all whole frames that one recv brought are applied, then acknowledged
// by one send. Payloads are applied from the receive buffer.
type session struct {
	replica *Replica
	conn    net.Conn
	sock    *socket
	hello   wire.Hello
	epoch   uint64
	over    chan struct{} // closed when nothing of this session can be applied any more
	due     bool          // an ack is due; the receiver's
	part    uint64        // the write that waits for its next part, or 0; the receiver's

	mu      sync.Mutex
	out     []byte // the frame being sent
	iovs    [1]unix.Iovec
	applied uint64 // only the receiver sets it
	durable uint64
	wanted  uint64    // sync until durable reaches this
	wake    sync.Cond // wanted or ended changed
	ended   bool
}

// bufferSize is the receive buffer's: it holds the largest frame, and as much
// again, so that what is left of a frame rarely has to be moved.
const bufferSize = 2 * (wire.HeaderSize + wire.MaxPayload)

func (s *session) run() error {
	sock, err := newSocket(s.conn)
	if err != nil {
		return err
	}
	s.sock, s.wake.L = sock, &s.mu
	s.out = make([]byte, wire.HeaderSize, wire.HeaderSize+maxText)
	var syncing sync.WaitGroup
	syncing.Go(s.syncLoop)
	err = s.receive(sock)
	s.conn.Close()
	s.mu.Lock()
	s.ended = true
	s.wake.Broadcast()
	s.mu.Unlock()
	syncing.Wait()
	return err
}

func (s *session) receive(sock *socket) error {
	buf := make([]byte, bufferSize)
	start, end := 0, 0 // what was received and not yet handled
	for {
		n, err := sock.recv(buf[end:])
		if err != nil {
			if err == io.EOF && end > start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		end += n
		used, need, err := s.frames(buf[start:end])
		if err != nil {
			return s.report(err)
		}
		start += used
		if err := s.acknowledge(); err != nil {
			return err
		}
		switch {
		case start == end:
			start, end = 0, 0
		case start+need > len(buf):
			start, end = 0, copy(buf, buf[start:end])
		}
	}
}

// frames handles the whole frames in b. It returns how many bytes they take and
// how many the next one needs.
func (s *session) frames(b []byte) (used, need int, err error) {
	for {
		rest := b[used:]
		if len(rest) < wire.HeaderSize {
			return used, wire.HeaderSize, nil
		}
		var h wire.Header
		if err := h.Decode(rest); err != nil {
			return used, 0, err
		}
		need := wire.HeaderSize + int(h.Payload)
		if len(rest) < need {
			return used, need, nil
		}
		if err := s.handle(&h, rest[wire.HeaderSize:need]); err != nil {
			return used, 0, err
		}
		used += need
	}
}

func (s *session) handle(h *wire.Header, payload []byte) error {
	if err := h.Check(payload); err != nil {
		return err
	}
	if h.Epoch != s.epoch {
		return fmt.Errorf("%w: %v frame of epoch %d in a session of epoch %d", wire.ErrCorrupt, h.Kind, h.Epoch, s.epoch)
	}
	store := s.replica.conf.Store
	if h.Offset+uint64(h.Length) > uint64(store.Size()) {
		return fmt.Errorf("%w: %v frame at %d+%d is outside the volume of %d bytes", wire.ErrCorrupt, h.Kind, h.Offset, h.Length, store.Size())
	}
	if err := s.inTurn(h); err != nil {
		return err
	}
	off, length := int64(h.Offset), int64(h.Length)
	switch h.Kind {
	case wire.KindWrite:
		return s.done(h, store.WriteAt(payload, off))
	case wire.KindZero:
		return s.done(h, store.Zero(off, length, h.Flags&wire.NoHole != 0))
	case wire.KindFlush:
		return s.done(h, nil)
	case wire.KindCopy:
		if h.Flags&wire.Zero != 0 {
			return store.Zero(off, length, false)
		}
		return store.WriteAt(payload, off)
	case wire.KindSum:
		return s.digest(h)
	case wire.KindPing:
		return s.pong(h)
	}
	return fmt.Errorf("%w: a primary does not send %v frames", wire.ErrCorrupt, h.Kind)
}

// inTurn says whether h may come now: seqs rise, and the parts of one write come
// without a gap.
func (s *session) inTurn(h *wire.Header) error {
	switch {
	case s.part != 0 && (h.Kind != wire.KindWrite || h.Seq != s.part):
		return fmt.Errorf("%w: %v frame seq %d amid the parts of seq %d", wire.ErrCorrupt, h.Kind, h.Seq, s.part)
	case h.Kind != wire.KindWrite && h.Kind != wire.KindZero && h.Kind != wire.KindFlush:
		return nil
	case h.Seq <= s.applied:
		return fmt.Errorf("%w: %v frame seq %d after %d", wire.ErrCorrupt, h.Kind, h.Seq, s.applied)
	}
	s.part = 0
	if h.Flags&wire.More != 0 {
		s.part = h.Seq
	}
	return nil
}

// done notes that the op of h was applied, if it was, with all its parts.
func (s *session) done(h *wire.Header, err error) error {
	if err != nil || s.part != 0 {
		return err
	}
	if s.applied == 0 {
		s.replica.wrote(s.hello.Session)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = h.Seq
	s.due = true
	if h.Flags&wire.Durable != 0 {
		s.wanted = h.Seq
		s.wake.Signal()
	}
	return nil
}

// acknowledge says what was applied since the last time, if anything was.
func (s *session) acknowledge() error {
	if !s.due {
		return nil
	}
	s.due = false
	return s.sendAck()
}

func (s *session) sendAck() error {
	s.mu.Lock()
	defer s.mu.Unlock() // held while sending: acks must not overtake each other
	h := wire.Header{Kind: wire.KindAck, Seq: s.applied, Watermark: s.durable}
	return s.sendLocked(h, nil)
}

func (s *session) sendLocked(h wire.Header, payload []byte) error {
	h.Epoch = s.epoch
	h.Payload = uint32(len(payload))
	h.CRC = wire.Checksum(payload)
	s.out = s.out[:wire.HeaderSize]
	h.Encode(s.out)
	s.out = append(s.out, payload...)
	s.iovs[0] = iovec(s.out)
	// Acks are tiny and the socket nearly always has room: then a call that does
	// not sleep saves telling the scheduler.
	n, err := s.sock.trySend(s.iovs[:])
	if err == nil && n < len(s.out) {
		_, err = s.conn.Write(s.out[n:])
	}
	return err
}

func (s *session) send(h wire.Header, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked(h, payload)
}

// syncLoop makes durable what must be, in groups: all that was applied when a
// sync begins.
func (s *session) syncLoop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.wanted <= s.durable && !s.ended {
			s.wake.Wait()
		}
		if s.ended {
			return
		}
		upTo := s.applied
		s.mu.Unlock()
		err := s.sync()
		s.mu.Lock()
		if err != nil {
			s.sendLocked(wire.Header{Kind: wire.KindFailed}, []byte(truncate(err.Error())))
			s.conn.Close()
			return
		}
		s.durable = upTo
		h := wire.Header{Kind: wire.KindAck, Seq: s.applied, Watermark: s.durable}
		if s.sendLocked(h, nil) != nil {
			s.conn.Close()
			return
		}
	}
}

// sync syncs the store. A failure is final for this replica: what its disk holds
// is unknown from then on.
func (s *session) sync() error {
	err := s.replica.conf.Store.Sync()
	if err != nil {
		s.replica.mu.Lock()
		s.replica.failed = err
		s.replica.mu.Unlock()
	}
	return err
}

// report tells the primary why this session ends.
func (s *session) report(err error) error {
	s.send(wire.Header{Kind: wire.KindFailed}, []byte(truncate(err.Error())))
	return err
}

func (s *session) pong(h *wire.Header) error {
	if h.Flags&wire.Durable != 0 {
		if err := s.sync(); err != nil {
			return err
		}
	}
	return s.send(wire.Header{Kind: wire.KindPong, Seq: h.Seq}, nil)
}

// digest answers what a range holds: a SHA-256, or whether it is all zeroes.
func (s *session) digest(h *wire.Header) error {
	out := wire.Header{Kind: wire.KindDigest, Seq: h.Seq, Offset: h.Offset, Length: h.Length}
	off, length := int64(h.Offset), int64(h.Length)
	if h.Flags&wire.Zero != 0 {
		zero, err := s.allZero(off, length)
		if err != nil {
			return err
		}
		if zero {
			out.Flags = wire.Zero
		}
		return s.send(out, nil)
	}
	if length > compareChunk {
		return fmt.Errorf("%w: sum of %d bytes", wire.ErrCorrupt, length)
	}
	data := make([]byte, length)
	if err := s.replica.conf.Store.ReadAt(data, off); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	return s.send(out, sum[:])
}

// allZero reads what is allocated in the range.
func (s *session) allZero(off, length int64) (bool, error) {
	store := s.replica.conf.Store
	buf := make([]byte, min(length, compareChunk))
	for end := off + length; off < end; {
		start, stop, err := store.Data(off)
		if err != nil {
			return false, err
		}
		start, stop = min(start, end), min(stop, end)
		n := min(stop-start, int64(len(buf)))
		if n == 0 {
			return true, nil
		}
		if err := store.ReadAt(buf[:n], start); err != nil {
			return false, err
		}
		if !isZero(buf[:n]) {
			return false, nil
		}
		off = start + n
	}
	return true, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
