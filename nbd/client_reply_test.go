package nbd

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestReplyViolations: what a server may not send breaks the connection.
func TestReplyViolations(t *testing.T) {
	const read, write, status = "0000000000000001", "0000000000000002", "0000000000000003"
	for name, tc := range map[string]struct{ wire, want string }{
		"magic":                {"12345678 00000000" + read, "begins with 0x12345678"},
		"unknown cookie":       {"67446698 00000000 0000000000000009", "unknown request 0x9"},
		"simple reply to read": {"67446698 00000000" + read, "a simple reply to a read"},
		"closed":               {"67446698 0000", "closed the connection"},
		"read too short":       {"668e33ef 0001 0001" + read + "00000009 0000000000000005 aa", "answered with 1"},
		"before the range":     {"668e33ef 0001 0001" + read + "0000000a 0000000000000004 aaaa", "does not belong"},
		"behind the range":     {"668e33ef 0001 0001" + read + "0000000a 0000000000000008 aaaa", "does not belong"},
		"hole behind":          {"668e33ef 0001 0002" + read + "0000000c 0000000000000005 00000005", "does not belong"},
		"data for a write":     {"668e33ef 0001 0001" + write + "0000000a 0000000000000000 aaaa", "does not belong"},
		"empty data":           {"668e33ef 0001 0001" + read + "00000008 0000000000000005", "a data chunk of 8"},
		"giant chunk":          {"668e33ef 0001 0005" + status + "ffffffff", "a chunk of 4294967295"},
		"no extents":           {"668e33ef 0001 0000" + status + "00000000", "without extents"},
		"status for a read":    {"668e33ef 0001 0005" + read + "0000000c 00000001 00000004 00000000", "type 5"},
		"unknown type":         {"668e33ef 0001 0063" + read + "00000000", "type 99"},
		"error text too long":  {"668e33ef 0001 8001" + read + "00000006 00000005 0001", "type 32769"},
	} {
		t.Run(name, func(t *testing.T) {
			wire, err := hex.DecodeString(strings.ReplaceAll(tc.wire, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			calls := map[uint64]*call{
				1: {header: header{cmd: CmdRead, offset: 5, length: 4}, data: make([]byte, 4)},
				2: {header: header{cmd: CmdWrite, length: 4}},
				3: {header: header{cmd: CmdBlockStatus, length: 4}},
			}
			p := replyReader{r: bufio.NewReader(bytes.NewReader(wire)), structured: true, contextID: 1,
				find: func(cookie uint64) *call { return calls[cookie] }}
			if _, err := p.next(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// bareClient is a client without a server: the test has the other end.
func bareClient(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	client, server := socketPair(t)
	server.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the next read reports it
	c := newClient(client, bufio.NewReader(client), Info{Size: 1 << 30, MaxBlock: MaxPayload}, 0)
	t.Cleanup(func() { c.Close() })
	return c, server
}

// TestClientPassesReadingOn: whichever caller reads for the others, when it
// leaves, one that waits goes on, never one that is still sending: that one is
// stuck here until all replies were read.
func TestClientPassesReadingOn(t *testing.T) {
	for range 40 { // who is chosen is random
		c, server := bareClient(t)
		flushed, written := make(chan error, 3), make(chan error, 1)
		for range 3 {
			go func() { flushed <- c.Flush() }()
			if _, err := io.ReadFull(server, make([]byte, requestSize)); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "three callers", func() bool { return c.waiting() == 3 })
		go func() {
			_, err := c.WriteAt(make([]byte, 8<<20), 0)
			written <- err
		}()
		if _, err := io.ReadFull(server, make([]byte, requestSize)); err != nil {
			t.Fatal(err)
		}
		for cookie := range uint64(3) {
			server.Write(appendSimpleReply(nil, 0, cookie+1)) //nolint:errcheck // the flush would fail
			select {
			case err := <-flushed:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nobody reads")
			}
		}
		go io.Copy(io.Discard, server)             //nolint:errcheck // ends with the connection
		server.Write(appendSimpleReply(nil, 0, 4)) //nolint:errcheck // the write would fail
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// waiting is the number of calls that are sent and not answered.
func (c *Client) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.calls {
		if k.sent {
			n++
		}
	}
	return n
}
