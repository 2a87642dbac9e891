package forward

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"lockstep/mirror"
)

// golden are the frames of testdata/frames.txt, by name.
var golden = map[string]struct {
	header  header
	payload []byte
}{
	"hello":         {header{kind: kindHello}, (&hello{session: 0x1122334455667788, generation: 3, incarnation: 2, size: 1 << 30, client: "vm7"}).append(nil)},
	"hello-unnamed": {header{kind: kindHello}, (&hello{session: 1, size: 512}).append(nil)},
	"welcome":       {header{kind: kindWelcome}, nil},
	"refuse":        {header{kind: kindRefuse}, (&Refusal{Reason: NotPrimary, Primary: "b"}).append(nil)},
	"read":          {header{kind: kindRead, tag: 5, offset: 4096, length: 512}, nil},
	"write":         {header{kind: kindWrite, flags: flagFUA | flagRetry, tag: 6, number: 4, lowest: 2, offset: 1 << 40, length: 9}, []byte("123456789")},
	"zero":          {header{kind: kindZero, flags: flagNoHole, tag: 7, number: 5, lowest: 5, offset: 512, length: 1<<32 - 1}, nil},
	"flush":         {header{kind: kindFlush, tag: 8}, nil},
	"reply":         {header{kind: kindReply, tag: 6}, nil},
	"reply-data":    {header{kind: kindReply, tag: 5}, []byte{1, 2, 3, 4}},
	"reply-error":   {header{kind: kindReply, errno: 28, tag: 6}, []byte("no space")},
	"reply-again":   {header{kind: kindReply, flags: flagAgain, tag: 6}, nil},
	"ping":          {header{kind: kindPing}, nil},
}

func encode(h header, payload []byte) []byte { return append(h.encode(nil, payload), payload...) }

// TestGolden pins the bytes of every layout: a change of them is a new protocol.
func TestGolden(t *testing.T) {
	pinned := map[kind]bool{}
	datadriven.RunTest(t, "testdata/frames.txt", func(t *testing.T, d *datadriven.TestData) string {
		g, ok := golden[d.CmdArgs[0].Key]
		if !ok {
			t.Fatalf("%s: no frame %q", d.Pos, d.CmdArgs[0].Key)
		}
		pinned[g.header.kind] = true
		b := encode(g.header, g.payload)
		var h header
		if err := h.decode(b); err != nil {
			t.Fatal(err)
		}
		if err := h.verify(b[HeaderSize:]); err != nil {
			t.Fatal(err)
		}
		h.payload, h.crc = 0, 0
		if h != g.header {
			t.Errorf("decoded %+v, want %+v", h, g.header)
		}
		return dump(b)
	})
	for k := kindHello; k.valid(); k++ {
		if !pinned[k] {
			t.Errorf("no golden %v frame", k)
		}
	}
}

// dump shows a frame by the fields of the byte tables.
func dump(b []byte) string {
	var out strings.Builder
	line := func(name string, from, to int) { fmt.Fprintf(&out, "%-7s %x\n", name, b[from:to]) }
	line("head", 0, 8)
	line("tag", 8, 16)
	line("number", 16, 24)
	line("lowest", 24, 32)
	line("range", 32, 44)
	line("payload", 44, 52)
	line("crc", 52, 56)
	if rest := b[HeaderSize:]; len(rest) > 0 {
		fmt.Fprintf(&out, "%s", hex.Dump(rest))
	}
	return out.String()
}

// TestEveryFlippedBitIsFound is the paired assertion of encode and decode.
func TestEveryFlippedBitIsFound(t *testing.T) {
	g := golden["write"]
	for i := range 8 * (HeaderSize + len(g.payload)) {
		b := encode(g.header, g.payload)
		b[i/8] ^= 1 << (i % 8)
		var h header
		err := h.decode(b)
		if err == nil {
			err = h.verify(b[HeaderSize:])
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d of byte %d flipped: %v, want ErrCorrupt", i%8, i/8, err)
		}
	}
}

func TestDecodeRefusesWhatNoPeerSends(t *testing.T) {
	for name, tc := range map[string]struct {
		h       header
		payload int
	}{
		"kind 0":                   {h: header{}},
		"unknown kind":             {h: header{kind: kindPing + 1}},
		"unknown flag":             {h: header{kind: kindFlush, flags: 1 << 7}},
		"a read of nothing":        {h: header{kind: kindRead}},
		"a giant read":             {h: header{kind: kindRead, length: MaxLength + 1}},
		"a zero of nothing":        {h: header{kind: kindZero, number: 1}},
		"range overflows":          {h: header{kind: kindZero, number: 1, offset: 1<<64 - 1, length: 2}},
		"half a write":             {h: header{kind: kindWrite, number: 1, length: 8}, payload: 4},
		"a write without number":   {h: header{kind: kindWrite, length: 4}, payload: 4},
		"a read with one":          {h: header{kind: kindRead, number: 1, length: 4}},
		"lowest above the number":  {h: header{kind: kindWrite, number: 1, lowest: 2, length: 4}, payload: 4},
		"a ping that carries":      {h: header{kind: kindPing}, payload: 1},
		"a hello without measure":  {h: header{kind: kindHello}, payload: maxGreeting + 1},
		"a reply of more than all": {h: header{kind: kindReply}, payload: MaxLength + 1},
	} {
		b := tc.h.encode(nil, make([]byte, tc.payload))
		if err := new(header).decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	hi, no := golden["hello"].payload, golden["refuse"].payload
	for name, b := range map[string][]byte{
		"empty": nil, "cut short": hi[:len(hi)-1], "one byte more": append(bytes.Clone(hi), 0), "no name": hi[:helloFixed],
	} {
		if err := new(hello).decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("hello, %s: %v, want ErrCorrupt", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "cut short": no[:len(no)-1], "one byte more": append(bytes.Clone(no), 0), "no reason": {0, 0},
	} {
		if err := new(Refusal).decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("refusal, %s: %v, want ErrCorrupt", name, err)
		}
	}
}

// TestKindsOfOps: opOfKind is the inverse of kindOfOp.
func TestKindsOfOps(t *testing.T) {
	for op := mirror.Read; op <= mirror.Flush; op++ {
		if got := opOfKind(kindOfOp[op]); got != op {
			t.Errorf("a %v is sent as a %v and taken for a %v", op, kindOfOp[op], got)
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, g := range golden {
		f.Add(encode(g.header, g.payload))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		if len(b) < HeaderSize || h.decode(b) != nil {
			return
		}
		payload := b[HeaderSize:]
		if int(h.payload) != len(payload) || h.verify(payload) != nil {
			return
		}
		if again := encode(h, payload); !bytes.Equal(again, b) {
			t.Errorf("% x decodes and encodes to % x", b, again)
		}
	})
}

func FuzzGreeting(f *testing.F) {
	for _, name := range []string{"hello", "hello-unnamed", "refuse"} {
		f.Add(golden[name].payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h hello
		if h.decode(b) == nil && !bytes.Equal(h.append(nil), b) {
			t.Errorf("hello % x does not encode to itself", b)
		}
		var r Refusal
		if r.decode(b) == nil && !bytes.Equal(r.append(nil), b) {
			t.Errorf("refusal % x does not encode to itself", b)
		}
	})
}

// FuzzSession: whatever a node sends after its hello, the volume gets only what lies
// in it, every buffer is given back, and the connection ends.
func FuzzSession(f *testing.F) {
	for _, name := range []string{"read", "write", "zero", "flush", "ping", "reply"} {
		f.Add(encode(golden[name].header, golden[name].payload))
	}
	f.Add(encode(header{kind: kindWrite, tag: 1, number: 1, lowest: 1, length: 4}, []byte("data")))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newSession(NewServer(ServerConfig{Size: testSize}), &script{Reader: bytes.NewReader(b)}, &hello{size: testSize}, checking{t})
		if err := c.serve(); err == nil {
			t.Error("a session ended for no reason")
		}
		if c.ops != 0 || c.bytes != 0 {
			t.Errorf("%d ops and %d bytes are left in flight", c.ops, c.bytes)
		}
	})
}
