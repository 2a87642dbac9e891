package nbd

import (
	"encoding/binary"
	"sync"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Request is one command of one connection. The server fills it and hands it to
// [Backend.Submit]; the backend fills the result and hands it to [Complete].
// Requests are pooled: after Complete nothing of it may be touched.
type Request struct {
	Cmd    Command
	Flags  CommandFlags
	Offset uint64 // bytes; Offset+Length is at most the export's size
	Length uint64 // bytes, at least 1 except for CmdFlush, where it is 0

	// Data is the payload of a CmdWrite, or the space that a CmdRead must fill
	// completely (it holds garbage). It has Length bytes and is 64-byte aligned.
	// Valid until Complete. Nil for every other command.
	Data []byte

	// Extents is the answer to CmdBlockStatus, appended by the backend: what
	// the range from Offset on looks like, in order and without gaps. What goes
	// beyond Length or MaxExtents is cut off.
	Extents []Extent

	// Err is the outcome, set before Complete; nil is success. The
	// syscall.Errno in its chain picks the NBD error, without one it is EIO. With
	// ErrHangup in its chain there is no reply: the connection is closed.
	Err error

	// Tag is the backend's own from Submit to Complete.
	Tag any

	conn   *conn
	cookie uint64
	buf    *buffer  // holds Data, or a reply that does not fit head
	head   [28]byte // a reply without data
	reply  []byte   // what is still to be sent
	cost   int64    // bytes that count against the connection's bound
}

// Abandoned says that the client has gone, or will not be sent an answer any
// more. A backend that holds the request until it can be done may give it up then:
// complete it with an error. It costs one atomic load; any goroutine may ask.
func (r *Request) Abandoned() bool { return r.conn.gone.Load() }

// Fresh leaves the memory of Data to whoever still uses it, for good, and gives a
// CmdRead other memory: for a backend whose disk hangs and which completes the request
// by other means.
func (r *Request) Fresh() {
	if r.buf == nil {
		return
	}
	r.buf = nil
	if r.Cmd == CmdRead {
		r.allocData()
	}
}

// Extent is a piece of a range that is in one state.
type Extent struct {
	Length uint64 // bytes
	Hole   bool   // not allocated
	Zero   bool   // reads as zeroes
}

// maxPooledExtents is the most room for extents that a pooled request keeps.
const maxPooledExtents = 1024

var requestPool = sync.Pool{New: func() any { return new(Request) }}

func getRequest() *Request { return requestPool.Get().(*Request) }

func putRequest(r *Request) {
	putBuffer(r.buf)
	extents := r.Extents[:0]
	if cap(extents) > maxPooledExtents {
		extents = nil
	}
	*r = Request{Extents: extents}
	requestPool.Put(r)
}

// header is a request's fixed part as it is on the wire.
type header struct {
	cmd    Command
	flags  CommandFlags
	cookie uint64
	offset uint64
	length uint32
}

// parseHeader decodes the first requestSize bytes of b; false means that they do
// not begin with the request magic.
func parseHeader(b []byte) (h header, ok bool) {
	_ = b[requestSize-1]
	if binary.BigEndian.Uint32(b) != protocol.TRANSMISSION_MAGIC_REQUEST {
		return header{}, false
	}
	return header{
		flags:  CommandFlags(binary.BigEndian.Uint16(b[4:])),
		cmd:    Command(binary.BigEndian.Uint16(b[6:])),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, true
}

// appendHeader is the inverse of parseHeader.
func appendHeader(b []byte, h header) []byte {
	b = binary.BigEndian.AppendUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
	b = binary.BigEndian.AppendUint16(b, uint16(h.flags))
	b = binary.BigEndian.AppendUint16(b, uint16(h.cmd))
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// payloadSize is the number of bytes that follow the header on the wire.
func (h header) payloadSize() int {
	if h.cmd == CmdWrite {
		return int(h.length)
	}
	return 0
}

// cost is what the request will hold in buffers, in bytes.
func (h header) cost() int64 {
	switch {
	case (h.cmd == CmdRead || h.cmd == CmdWrite) && h.length <= MaxPayload:
		return int64(h.length)
	case h.cmd == CmdBlockStatus:
		return 8 * MaxExtents
	}
	return 0
}

// newRequest takes a request from the pool for c.
func (c *conn) newRequest(h header) *Request {
	r := getRequest()
	r.conn, r.cookie, r.cost = c, h.cookie, h.cost()
	r.Cmd, r.Flags, r.Offset, r.Length = h.cmd, h.flags, h.offset, uint64(h.length)
	return r
}

// allocData gives the request its pooled payload buffer.
func (r *Request) allocData() {
	r.buf = getBuffer(int(r.Length))
	r.Data = r.buf.data(int(r.Length))
}

// Complete answers requests that Submit handed over: each exactly once, with Err
// (and Data or Extents) set. It never blocks, may be called from any goroutine,
// also from within Submit, and costs at most one system call per connection in
// the batch. The slice is the caller's again when it returns.
func Complete(batch []*Request) {
	var few [8]*conn
	touched := few[:0]
	for len(batch) > 0 {
		c := batch[0].conn
		if c == nil {
			panic("nbd: request completed twice")
		}
		n := 1
		for n < len(batch) && batch[n].conn == c {
			n++
		}
		c.enqueue(batch[:n])
		touched = appendNew(touched, c)
		batch = batch[n:]
	}
	for _, c := range touched {
		c.flush()
	}
}

func appendNew(conns []*conn, c *conn) []*conn {
	for _, have := range conns {
		if have == c {
			return conns
		}
	}
	return append(conns, c)
}
