package nbd

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// instant completes everything at once, touching no data: what is left is the
// cost of the protocol.
type instant struct{}

func (instant) Submit(batch []*Request) { Complete(batch) }

func BenchmarkParseHeader(b *testing.B) {
	wire := request(header{cmd: CmdWrite, cookie: 7, offset: 4096, length: 4096})
	for b.Loop() {
		if h, ok := parseHeader(wire); !ok || h.length != 4096 {
			b.Fatal(h)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	e := disk(1 << 30)
	if err := e.setDefaults(); err != nil {
		b.Fatal(err)
	}
	s := session{export: &e}
	r := &Request{Cmd: CmdWrite, Offset: 4096, Length: 4096}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.validate(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeReply(b *testing.B) {
	for _, structured := range []bool{false, true} {
		b.Run(fmt.Sprintf("structured=%v", structured), func(b *testing.B) {
			r := &Request{Cmd: CmdRead, Length: 4096}
			r.allocData()
			b.ReportAllocs()
			for b.Loop() {
				encodeReply(r, structured)
			}
		})
	}
}

// BenchmarkServer measures a round trip over a unix socket with a client that
// sends depth requests in one write and reads all their replies.
func BenchmarkServer(b *testing.B) {
	for _, bc := range []struct {
		cmd    Command
		length int
		depth  int
	}{
		{CmdRead, 4096, 1}, {CmdRead, 4096, 32}, {CmdWrite, 4096, 1}, {CmdWrite, 4096, 32}, {CmdRead, 1 << 20, 8}, {CmdWrite, 1 << 20, 8},
	} {
		b.Run(fmt.Sprintf("%s/%d/depth=%d", bc.cmd, bc.length, bc.depth), func(b *testing.B) {
			e := disk(1 << 30)
			e.Backend = instant{}
			nc := rawClient(b, serve(b, Config{Exports: []Export{e}}))
			nc.SetDeadline(time.Time{}) //nolint:errcheck // a unix socket takes it
			one, reply := request(header{cmd: bc.cmd, length: uint32(bc.length)}), simpleReplySize+bc.length
			if bc.cmd == CmdWrite {
				one, reply = append(one, make([]byte, bc.length)...), simpleReplySize
			}
			b.SetBytes(int64(bc.length))
			b.ReportAllocs()
			b.ResetTimer()
			exchange(b, nc, one, reply, bc.depth)
		})
	}
}

func exchange(b *testing.B, nc net.Conn, one []byte, reply, depth int) {
	var out []byte
	for range depth {
		out = append(out, one...)
	}
	in := make([]byte, depth*reply)
	for left := b.N; left > 0; left -= depth {
		n := min(left, depth)
		sent := out[:n*len(one)]
		if len(sent) <= 64<<10 {
			if _, err := nc.Write(sent); err != nil {
				b.Fatal(err)
			}
			readFull(b, nc, in[:n*reply])
			continue
		}
		var sender sync.WaitGroup            // both directions may fill up
		sender.Go(func() { nc.Write(sent) }) //nolint:errcheck // the read reports it
		readFull(b, nc, in[:n*reply])
		sender.Wait()
	}
}

func readFull(b *testing.B, r io.Reader, p []byte) {
	if _, err := io.ReadFull(r, p); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkClient measures the client with concurrent callers.
func BenchmarkClient(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			e := disk(1 << 30)
			e.Backend = instant{}
			c := connect(b, serve(b, Config{Exports: []Export{e}}))
			b.ReportAllocs()
			b.ResetTimer()
			var callers sync.WaitGroup
			for i := range depth {
				callers.Go(func() {
					p := make([]byte, 4096)
					for range (b.N + depth - 1 - i) / depth {
						if _, err := c.WriteAt(p, 0); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
		})
	}
}
