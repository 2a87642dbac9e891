package nbd

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readWriter is a client that has sent everything already.
type readWriter struct {
	io.Reader
	io.Writer
}

// FuzzHandshake: any bytes from a client end in an error or in a session with an
// export; memory stays bounded by what an option may hold.
func FuzzHandshake(f *testing.F) {
	option := func(id byte, data string) string {
		return "IHAVEOPT\x00\x00\x00" + string(id) + "\x00\x00\x00" + string(rune(len(data))) + data
	}
	for _, options := range []string{
		option(7, "\x00\x00\x00\x04disk\x00\x01\x00\x03"),
		option(8, "") + option(10, "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation") + option(1, ""),
		option(3, "") + option(9, "\x00\x00\x00\x00\x00\x00\x00\x00") + option(2, ""),
		option(6, "\xff\xff\xff\xff\x00\x00"),
	} {
		f.Add([]byte("\x00\x00\x00\x03" + options))
	}
	s, err := NewServer(Config{Exports: []Export{disk(1 << 20)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		var answer bytes.Buffer
		h := &handshake{rw: readWriter{bytes.NewReader(sent), &answer}, list: s.list, find: s.find,
			attach: func(e *Export) (Backend, error) { return e.Backend, nil }}
		got, err := h.run()
		if err == nil && got.export == nil {
			t.Fatal("a session without an export")
		}
		if answer.Len() > 18+maxOptions*(1<<10) {
			t.Fatalf("%d bytes of answer", answer.Len())
		}
	})
}

// FuzzRequests: any bytes in the transmission phase are answered, the connection
// ends, and the backend sees only what validate promises.
func FuzzRequests(f *testing.F) {
	f.Add(request(header{cmd: CmdRead, cookie: 1, offset: 10, length: 100}))
	f.Add(append(request(header{cmd: CmdWrite, flags: FlagFUA, length: 3}, 1, 2, 3), request(header{cmd: CmdDisc})...))
	f.Add(request(header{cmd: CmdBlockStatus, flags: FlagReqOne, length: 1 << 20}))
	f.Add(request(header{cmd: CmdWriteZeroes, flags: FlagNoHole | FlagFastZero, offset: math.MaxUint64, length: math.MaxUint32}))
	m := newMemory()
	e := disk(1 << 20)
	e.Backend = m
	s, err := NewServer(Config{Exports: []Export{e}, Limits: Limits{Drain: time.Second}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		m.seen = func(r *Request, _ error) {
			if r.Offset > e.Size || r.Length > e.Size-r.Offset || r.Data != nil && uint64(len(r.Data)) != r.Length ||
				(r.Cmd == CmdRead || r.Cmd == CmdWrite) && r.Data == nil || r.Length == 0 && r.Cmd != CmdFlush {
				t.Errorf("the backend got %s, %d bytes at %d", r.Cmd, r.Length, r.Offset)
			}
		}
		client, server := socketPair(t)
		c, err := s.newConn(server)
		if err != nil {
			t.Fatal(err)
		}
		c.session = session{export: &s.exports[0], backend: m, structured: len(sent)%2 == 0, baseAllocation: len(sent)%2 == 0}
		go func() {
			client.Write(sent) //nolint:errcheck // the server may hang up before the end
			client.CloseWrite()
			io.Copy(io.Discard, client) //nolint:errcheck // ends with the connection
		}()
		c.transmit() //nolint:errcheck // garbage ends in an error
		server.Close()
		if n := c.flow.requests.Load() + c.flow.bytes.Load() + s.memory.Load(); n != 0 {
			t.Fatalf("%d left in flight", n)
		}
	})
}

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		nc, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = nc.(*net.UnixConn)
		t.Cleanup(func() { nc.Close() })
	}
	return ends[0], ends[1]
}

// FuzzReplies: any bytes from a server end in an error, without writing outside
// the callers' buffers or allocating more than a chunk may hold.
func FuzzReplies(f *testing.F) {
	ok := &Request{Cmd: CmdRead, Offset: 5, Length: 10, cookie: 1}
	ok.allocData()
	encodeReply(ok, true)
	f.Add(bytes.Clone(ok.reply), true)
	f.Add(appendErrorChunk(nil, &Request{Err: io.EOF, cookie: 2}), true)
	status := &Request{Cmd: CmdBlockStatus, Length: 10, Extents: []Extent{{Length: 3, Hole: true}, {Length: 9}}, cookie: 3}
	encodeReply(status, true)
	f.Add(bytes.Clone(status.reply), true)
	f.Add(append(appendSimpleReply(nil, 0, 1), make([]byte, 10)...), false)
	f.Add(appendSimpleReply(nil, 5, 2), false)
	f.Fuzz(func(t *testing.T, sent []byte, structured bool) {
		whole := bytes.Repeat([]byte{0xee}, 30)
		calls := map[uint64]*call{
			1: {header: header{cmd: CmdRead, cookie: 1, offset: 5, length: 10}, data: whole[10:20:20]},
			2: {header: header{cmd: CmdWrite, cookie: 2, length: 10}},
			3: {header: header{cmd: CmdBlockStatus, cookie: 3, length: 10}},
		}
		p := replyReader{r: bufio.NewReader(bytes.NewReader(sent)), structured: structured, contextID: 1,
			find: func(cookie uint64) *call { return calls[cookie] }}
		for {
			k, err := p.next()
			if err != nil {
				break
			}
			if k != nil {
				delete(calls, k.cookie)
			}
		}
		if !bytes.Equal(whole[:10], whole[20:]) || whole[0] != 0xee {
			t.Fatal("wrote outside the caller's buffer")
		}
	})
}

// FuzzNegotiation: any bytes from a server in the handshake end in an error or in
// block sizes that the client can work with.
func FuzzNegotiation(f *testing.F) {
	var b []byte
	b = append(b, "NBDMAGICIHAVEOPT\x00\x03"...)
	b = appendOptionReply(b, NBD_OPT_STRUCTURED_REPLY, 1<<31|1, nil)
	e := disk(1 << 20)
	if err := e.setDefaults(); err != nil {
		f.Fatal(err)
	}
	f.Add(appendOptionReply(appendInfos(b, 7, &e, nil, false), 7, 1, nil))
	f.Fuzz(func(t *testing.T, sent []byte) {
		n := &negotiation{w: io.Discard, r: bufio.NewReader(bytes.NewReader(sent)), info: Info{MinBlock: 1, MaxBlock: 1}}
		if err := n.run(); err == nil && (n.info.MaxBlock == 0 || n.info.MinBlock == 0) {
			t.Fatalf("block sizes %+v", n.info)
		}
	})
}
