package nbd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// TestWire plays what clients send, byte by byte, and compares what the server
// answers. In testdata/wire, each client's bytes are hex with comments; the server's
// are printed one message a line.
func TestWire(t *testing.T) {
	datadriven.Walk(t, "testdata/wire", func(t *testing.T, path string) {
		m := newMemory()
		for n := range uint64(1 << 20 / memChunk) { // 0x55 but for the holes from 512 KiB on
			if n < 8 {
				m.chunks[n] = bytes.Repeat([]byte{0x55}, memChunk)
			}
		}
		socket := serve(t, Config{
			Exports: []Export{
				{Name: "disk", Description: "a disk", Size: 1 << 20, FastZero: true, Backend: m},
				{Name: "ro", Size: 1 << 20, ReadOnly: true, MinBlock: 512, Backend: m},
				{Name: "huge", Size: 1 << 40, Backend: newMemory()},
			},
		})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			sent := expand(t, d)
			nc := dialUnix(t, socket)
			nc.SetDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // the read below reports it; some send 64 MiB
			go func() {
				nc.Write(sent) //nolint:errcheck // the server may hang up in between
				nc.(*net.UnixConn).CloseWrite()
			}()
			answer, err := io.ReadAll(nc)
			if err != nil && !strings.Contains(err.Error(), "reset by peer") {
				t.Fatal(err)
			}
			return describe(answer)
		})
	})
}

// prologues are the handshakes that transmission tests begin with.
var prologues = map[string]string{
	"simple": "00000003 49484156454f5054 00000007 %0 0000",
	"structured": "00000003 49484156454f5054 00000008 00000000" +
		"49484156454f5054 0000000a %1 00000001 0000000f 626173653a616c6c6f636174696f6e" +
		"49484156454f5054 00000007 %0 0000",
}

// expand returns the bytes that a test's client sends: "raw" as written, the
// other commands after a handshake for the export named by the argument export.
func expand(t *testing.T, d *datadriven.TestData) []byte {
	t.Helper()
	name := "disk"
	d.MaybeScanArgs(t, "export", &name)
	field := func(extra int) string {
		return fmt.Sprintf("%08x %08x %x", 4+len(name)+extra, len(name), name)
	}
	text := strings.NewReplacer("%0", field(2), "%1", field(4+4+15)).Replace(prologues[d.Cmd])
	return append(unhex(t, text), unhex(t, d.Input)...)
}

// unhex decodes hex with blanks, comments from # to the end of a line, and
// NNxHH for a repeated byte.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.Fields(line) {
			n, digits, repeated := strings.Cut(word, "x")
			if !repeated {
				digits = word
			}
			b, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatalf("%q: %v", word, err)
			}
			times := 1
			if repeated {
				fmt.Sscan(n, &times) //nolint:errcheck // a bad count shows in the output
			}
			out = append(out, bytes.Repeat(b, times)...)
		}
	}
	return out
}

// describe prints a server's bytes one message a line: its fields in hex, then
// its data.
func describe(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		var fields []int
		size := 0
		switch {
		case len(b) >= 18 && binary.BigEndian.Uint64(b) == protocol.NEGOTIATION_MAGIC_OLDSTYLE:
			fields = []int{8, 8, 2}
		case len(b) >= 20 && binary.BigEndian.Uint64(b) == protocol.NEGOTIATION_MAGIC_REPLY:
			fields, size = []int{8, 4, 4, 4}, int(binary.BigEndian.Uint32(b[16:]))
		case len(b) >= 16 && binary.BigEndian.Uint32(b) == protocol.TRANSMISSION_MAGIC_REPLY:
			fields = []int{4, 4, 8}
		case len(b) >= 20 && binary.BigEndian.Uint32(b) == NBD_STRUCTURED_REPLY_MAGIC:
			fields, size = []int{4, 2, 2, 8, 4}, int(binary.BigEndian.Uint32(b[16:]))
			if binary.BigEndian.Uint16(b[6:]) == NBD_REPLY_TYPE_ERROR {
				fields, size = append(fields, 4, 2), size-6
			}
		default:
			size = nextMessage(b)
		}
		var words []string
		for _, n := range fields {
			words = append(words, hex.EncodeToString(b[:n]))
			b = b[n:]
		}
		size = min(size, len(b))
		if size > 0 {
			words = append(words, brief(b[:size]))
		}
		fmt.Fprintln(&out, strings.Join(words, " "))
		b = b[size:]
	}
	return out.String()
}

// nextMessage finds where data of unknown length ends.
func nextMessage(b []byte) int {
	for i := range b {
		if i+4 <= len(b) && binary.BigEndian.Uint32(b[i:]) == protocol.TRANSMISSION_MAGIC_REPLY {
			return i
		}
	}
	return len(b)
}

// brief prints data as text where it is text, else as hex, and runs of more than
// 32 equal bytes as NNxHH.
func brief(b []byte) string {
	var words []string
	for from := 0; from < len(b); {
		to := from
		for to < len(b) && runLength(b[to:]) <= 32 {
			to++
		}
		if to > from {
			words = append(words, short(b[from:to]))
		}
		if n := runLength(b[to:]); n > 0 {
			words = append(words, fmt.Sprintf("%dx%02x", n, b[to]))
			to += n
		}
		from = to
	}
	return strings.Join(words, " ")
}

func runLength(b []byte) int {
	n := 0
	for n < len(b) && b[n] == b[0] {
		n++
	}
	return n
}

// short prints a printable tail of at least 4 bytes as text, the rest as hex.
func short(b []byte) string {
	text := len(b)
	for text > 0 && b[text-1] >= ' ' && b[text-1] < 127 {
		text--
	}
	switch {
	case len(b)-text < 4:
		return hex.EncodeToString(b)
	case text == 0:
		return strconv.Quote(string(b))
	}
	return fmt.Sprintf("%x %q", b[:text], b[text:])
}
