package mirror

import (
	"bufio"
	"fmt"
	"io"
	"net"

	"lockstep/mirror/wire"
)

// frameConn speaks frames one at a time over a connection: for the slow part of
// a connection's life, before writes flow.
type frameConn struct {
	conn  net.Conn
	in    *bufio.Reader
	out   *bufio.Writer
	epoch uint64
}

func newFrameConn(conn net.Conn, epoch uint64) *frameConn {
	return &frameConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10), epoch: epoch}
}

// write queues a frame; it goes out with the next flush or read, or when the
// buffer is full.
func (c *frameConn) write(h wire.Header, payload []byte) error {
	h.Epoch = c.epoch
	h.Payload = uint32(len(payload))
	h.CRC = wire.Checksum(payload)
	var b [wire.HeaderSize]byte
	h.Encode(b[:])
	if _, err := c.out.Write(b[:]); err != nil {
		return err
	}
	_, err := c.out.Write(payload)
	return err
}

// read flushes what was written and returns the next frame.
func (c *frameConn) read() (h wire.Header, payload []byte, err error) {
	if err := c.out.Flush(); err != nil {
		return h, nil, err
	}
	var b [wire.HeaderSize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return h, nil, err
	}
	if err := h.Decode(b[:]); err != nil {
		return h, nil, err
	}
	payload = make([]byte, h.Payload)
	if _, err := io.ReadFull(c.in, payload); err != nil {
		return h, nil, err
	}
	return h, payload, h.Check(payload)
}

// expect is read for a frame of one kind. What the replica says instead is the
// error.
func (c *frameConn) expect(kind wire.Kind) (wire.Header, []byte, error) {
	h, payload, err := c.read()
	switch {
	case err != nil:
		return h, nil, err
	case h.Kind == wire.KindRefuse:
		return h, nil, fmt.Errorf("%w: %s", errRefused, payload)
	case h.Kind == wire.KindFailed:
		return h, nil, fmt.Errorf("the replica failed: %s", payload)
	case h.Kind != kind:
		return h, nil, fmt.Errorf("%w: %v frame where %v was due", wire.ErrCorrupt, h.Kind, kind)
	}
	return h, payload, nil
}
