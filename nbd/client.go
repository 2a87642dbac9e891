package nbd

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// clientBuffer holds the replies that one receive brings, in bytes.
const clientBuffer = 64 << 10

// Client is one connection to an export. Its methods may be called concurrently;
// each call is one request in flight, and replies may come in any order. An error
// of one request leaves the connection usable; errors.Is finds its errno. After a
// connection error every call fails with that error.
//
// There is no reader goroutine: of the callers that wait for a reply one reads,
// for all of them, until it has its own. A caller that is alone reads its own
// reply without a hand-over.
type Client struct {
	info    Info
	nc      net.Conn
	replies replyReader // whoever set reading

	send struct {
		sync.Mutex
		head [requestSize]byte
		vec  [2][]byte
		bufs net.Buffers
	}

	mu      sync.Mutex
	calls   map[uint64]*call // by cookie; without those that are done
	cookie  uint64
	reading bool
	err     error // why the connection is unusable
}

// call is one request in flight.
type call struct {
	header
	data     []byte   // READ: to fill
	extents  []Extent // BLOCK_STATUS: filled
	err      error    // the server's answer
	received uint64   // READ: bytes that came in chunks

	// Guarded by Client.mu.
	sent bool
	done bool
	wake chan struct{} // capacity 1: done, or nobody is reading
}

var callPool = sync.Pool{New: func() any { return &call{wake: make(chan struct{}, 1)} }}

func newClient(nc net.Conn, r *bufio.Reader, info Info, contextID uint32) *Client {
	c := &Client{info: info, nc: nc, calls: map[uint64]*call{}}
	c.replies = replyReader{r: r, structured: info.Structured, contextID: contextID, find: c.find}
	return c
}

// Info returns what the handshake told about the export.
func (c *Client) Info() Info { return c.info }

// Size returns the export's size in bytes.
func (c *Client) Size() uint64 { return c.info.Size }

// ReadAt reads len(p) bytes at off. It implements io.ReaderAt: what lies beyond
// the end is io.EOF.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &Error{Op: "read", Subject: fmt.Sprintf("at %d", off), Err: syscall.EINVAL}
	}
	want := p
	if end := c.info.Size - min(uint64(off), c.info.Size); uint64(len(p)) > end {
		want = p[:end]
	}
	n, err := c.split(CmdRead, 0, want, uint64(off))
	if err == nil && len(want) < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt writes p at off. It implements io.WriterAt.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	return c.WriteFlags(p, off, 0)
}

// WriteFlags is WriteAt with command flags: with FlagFUA the data is on stable
// storage when it returns.
func (c *Client) WriteFlags(p []byte, off int64, flags CommandFlags) (int, error) {
	if off < 0 {
		return 0, &Error{Op: "write", Subject: fmt.Sprintf("at %d", off), Err: syscall.EINVAL}
	}
	return c.split(CmdWrite, flags, p, uint64(off))
}

// split sends requests of at most MaxBlock, one after the other.
func (c *Client) split(cmd Command, flags CommandFlags, p []byte, off uint64) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(len(p), n+int(c.info.MaxBlock))]
		h := header{cmd: cmd, flags: flags, offset: off + uint64(n), length: uint32(len(piece))}
		if _, err := c.do(h, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// Flush makes every write that was answered before durable.
func (c *Client) Flush() error {
	_, err := c.do(header{cmd: CmdFlush}, nil)
	return err
}

// Trim declares length bytes at off unneeded; at most 4 GiB - 1 in one call.
func (c *Client) Trim(off, length uint64, flags CommandFlags) error {
	return c.doRange(CmdTrim, flags, off, length)
}

// WriteZeroes makes length bytes at off read as zero; at most 4 GiB - 1 in one
// call.
func (c *Client) WriteZeroes(off, length uint64, flags CommandFlags) error {
	return c.doRange(CmdWriteZeroes, flags, off, length)
}

// Cache asks the server to make length bytes at off quick to read; at most
// 4 GiB - 1 in one call.
func (c *Client) Cache(off, length uint64) error {
	return c.doRange(CmdCache, 0, off, length)
}

func (c *Client) doRange(cmd Command, flags CommandFlags, off, length uint64) error {
	if length > math.MaxUint32 {
		return &Error{Op: cmd.String(), Subject: fmt.Sprintf("%d bytes", length), Err: syscall.EINVAL, Hint: "ask for less than 4 GiB at once"}
	}
	_, err := c.do(header{cmd: cmd, flags: flags, offset: off, length: uint32(length)}, nil)
	return err
}

// BlockStatus describes the range from off on: at least its first extent, and at
// most length bytes if FlagReqOne is given. It fails with ENOTSUP unless
// Info().BaseAllocation.
func (c *Client) BlockStatus(off uint64, length uint32, flags CommandFlags) ([]Extent, error) {
	h := header{cmd: CmdBlockStatus, flags: flags, offset: off, length: length}
	if !c.info.BaseAllocation {
		return nil, c.opError(h, syscall.ENOTSUP)
	}
	return c.do(h, nil)
}

// Close tells the server and closes the connection; calls in flight fail.
func (c *Client) Close() error {
	c.mu.Lock()
	usable := c.err == nil
	c.mu.Unlock()
	if usable && c.send.TryLock() {
		c.nc.SetWriteDeadline(time.Now().Add(time.Second))              //nolint:errcheck // closing anyway
		c.nc.Write(appendHeader(c.send.head[:0], header{cmd: CmdDisc})) //nolint:errcheck // closing anyway
		c.send.Unlock()
	}
	c.fail(net.ErrClosed)
	return nil
}

// do sends one request and waits for its reply.
func (c *Client) do(h header, data []byte) ([]Extent, error) {
	k := callPool.Get().(*call)
	*k = call{header: h, wake: k.wake}
	if h.cmd == CmdRead {
		k.data = data
		data = nil
	}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, c.opError(h, err)
	}
	c.cookie++
	k.cookie = c.cookie
	c.calls[k.cookie] = k
	c.mu.Unlock()

	if err := c.transmit(k.header, data); err != nil {
		c.fail(err)
	}
	c.await(k)
	extents, err := k.extents, k.err
	callPool.Put(k)
	if err != nil {
		return nil, c.opError(h, err)
	}
	return extents, nil
}

func (c *Client) opError(h header, err error) error {
	return &Error{Op: h.cmd.String(), Subject: fmt.Sprintf("%d bytes at %d", h.length, h.offset), Err: err}
}

// transmit sends a request.
func (c *Client) transmit(h header, payload []byte) error {
	s := &c.send
	s.Lock()
	defer s.Unlock()
	b := appendHeader(s.head[:0], h)
	if len(payload) == 0 {
		_, err := c.nc.Write(b)
		return err
	}
	s.vec = [2][]byte{b, payload}
	s.bufs = s.vec[:]
	_, err := s.bufs.WriteTo(c.nc)
	s.vec[1] = nil
	return err
}

// await returns when k is done: read by another caller, or by this one on behalf
// of all.
func (c *Client) await(k *call) {
	c.mu.Lock()
	k.sent = true
	for !k.done {
		if c.reading {
			c.mu.Unlock()
			<-k.wake
			c.mu.Lock()
			continue
		}
		c.reading = true
		c.mu.Unlock()
		err := c.read(k)
		c.mu.Lock()
		c.reading = false
		if err != nil {
			c.failLocked(err)
		} else if c.err != nil {
			c.failLocked(c.err)
		}
		c.passOnLocked()
	}
	c.mu.Unlock()
}

// read handles replies until k has its own and none is buffered any more.
func (c *Client) read(k *call) error {
	for own := false; !own || c.replies.r.Buffered() > 0; {
		done, err := c.replies.next()
		if err != nil {
			return err
		}
		if done == k {
			own = true
		}
		if done != nil {
			c.finish(done)
		}
	}
	return nil
}

// find returns the call with that cookie, or nil.
func (c *Client) find(cookie uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[cookie]
}

func (c *Client) finish(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishLocked(k)
}

func (c *Client) finishLocked(k *call) {
	delete(c.calls, k.cookie)
	k.done = true
	k.signal()
}

func (k *call) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// passOnLocked makes another waiting call read. One that is still sending is not
// chosen: it may be blocked until somebody has read replies.
func (c *Client) passOnLocked() {
	for _, k := range c.calls {
		if k.sent {
			k.signal()
			return
		}
	}
}

// fail makes the connection unusable. While somebody reads, the calls are left to
// it: it may be writing into their buffers.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading {
		c.breakLocked(err)
		return
	}
	c.failLocked(err)
}

func (c *Client) failLocked(err error) {
	c.breakLocked(err)
	for _, k := range c.calls {
		k.err = c.err
		c.finishLocked(k)
	}
}

func (c *Client) breakLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	c.nc.Close()
}
