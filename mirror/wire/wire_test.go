package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// golden are the frames of testdata/frames.txt, by name.
var golden = map[string]struct {
	header  Header
	payload []byte
}{
	"write": {Header{Kind: KindWrite, Flags: Durable, Epoch: 7, Seq: 0x1122334455667788, Watermark: 0x1122334455667700, Offset: 4096, Length: 9}, []byte("123456789")},
	"zero":  {Header{Kind: KindZero, Flags: NoHole, Epoch: 1, Seq: 2, Watermark: 1, Offset: 1 << 40, Length: 1<<32 - 1}, nil},
	"flush": {Header{Kind: KindFlush, Flags: Durable, Epoch: 1, Seq: 3, Watermark: 2}, nil},
	"ack":   {Header{Kind: KindAck, Epoch: 1, Seq: 3, Watermark: 2}, nil},
	"hello": {Header{Kind: KindHello, Epoch: 1}, (&Hello{Size: 1 << 30, Session: ID{1, 2, 3, 15: 255}, ID: ID{9, 15: 8}, Fresh: true, Volume: "vol"}).Append(nil)},
	"welcome": {Header{Kind: KindWelcome, Epoch: 1},
		(&Welcome{Size: 1 << 30, Epoch: 6, Replica: ID{15: 1}, Complete: true, Remembers: true}).Append(nil)},
	"configure": {Header{Kind: KindConfigure, Flags: Learner, Epoch: 8}, nil},
	"ranges":    {Header{Kind: KindRanges, Flags: More, Epoch: 8}, (&Range{Off: 4096, Len: 512}).Append(nil)},
	"welcome-lossy": {Header{Kind: KindWelcome, Epoch: 1},
		(&Welcome{Size: 512, Epoch: 1<<64 - 1, Replica: ID{1}, Known: true, Lossy: true}).Append(nil)},
	"refuse": {Header{Kind: KindRefuse}, []byte("why not")},
	"failed": {Header{Kind: KindFailed}, []byte("disk")},
	"sum":    {Header{Kind: KindSum, Flags: Zero, Epoch: 8, Seq: 4, Offset: 1 << 30, Length: 64 << 20}, nil},
	"digest": {Header{Kind: KindDigest, Seq: 4, Offset: 65536, Length: 65536}, bytes.Repeat([]byte{0xd1}, 32)},
	"copy":   {Header{Kind: KindCopy, Flags: Learner, Epoch: 8, Seq: 77, Offset: 512, Length: 4}, []byte{1, 2, 3, 4}},
	"pong":   {Header{Kind: KindPong, Seq: 9}, nil},
	"origins": {Header{Kind: KindOrigins, Flags: Complete, Epoch: 8},
		(&Origin{Session: 5, Number: 6, Lowest: 6, Known: true}).Append((&Origin{Session: 1, Number: 2, Lowest: 1}).Append(nil))},
	"mark":      {Header{Kind: KindMark, Epoch: 8, Seq: 12}, nil},
	"retire":    {Header{Kind: KindRetire, Epoch: 8, Seq: 12}, nil},
	"origin":    {Header{Kind: KindOrigin, Epoch: 8, Seq: 3}, (&Origin{Session: 1, Number: 2, Lowest: 3}).Append(nil)},
	"finish":    {Header{Kind: KindPing, Flags: Durable | Complete, Epoch: 8, Seq: 9}, nil},
	"copy-zero": {Header{Kind: KindCopy, Flags: Zero, Epoch: 1, Offset: 0, Length: 65536}, nil},
}

func encode(h Header, payload []byte) []byte {
	h.Payload = uint32(len(payload))
	h.CRC = Checksum(payload)
	b := make([]byte, HeaderSize)
	h.Encode(b)
	return append(b, payload...)
}

// TestGolden pins the bytes of every layout: a change of them is a new protocol.
func TestGolden(t *testing.T) {
	datadriven.RunTest(t, "testdata/frames.txt", func(t *testing.T, d *datadriven.TestData) string {
		g, ok := golden[d.CmdArgs[0].Key]
		if !ok {
			t.Fatalf("%s: no frame %q", d.Pos, d.CmdArgs[0].Key)
		}
		b := encode(g.header, g.payload)
		var h Header
		if err := h.Decode(b); err != nil {
			t.Fatal(err)
		}
		if err := h.Check(b[HeaderSize:]); err != nil {
			t.Fatal(err)
		}
		h.Payload, h.CRC = 0, 0
		if !reflect.DeepEqual(h, g.header) {
			t.Errorf("decoded %+v, want %+v", h, g.header)
		}
		return dump(b)
	})
}

// dump prints a frame's fields one a line.
func dump(b []byte) string {
	fields := []struct {
		name string
		size int
	}{{"magic", 4}, {"kind", 1}, {"flags", 1}, {"reserved", 2}, {"epoch", 8}, {"seq", 8}, {"watermark", 8}, {"offset", 8}, {"length", 4}, {"payload", 4}, {"payload crc", 4}, {"header crc", 4}}
	var out strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&out, "%-11s %x\n", f.name, b[:f.size])
		b = b[f.size:]
	}
	if len(b) > 0 {
		out.WriteString(hex.Dump(b))
	}
	return out.String()
}

// TestGoldenIsComplete: every kind has its bytes pinned.
func TestGoldenIsComplete(t *testing.T) {
	pinned := map[Kind]bool{}
	for _, g := range golden {
		pinned[g.header.Kind] = true
	}
	for kind := KindHello; kind.valid(); kind++ {
		if !pinned[kind] {
			t.Errorf("no golden %v frame", kind)
		}
	}
}

// RFC 3720, appendix B.4, and the check value of CRC-32C.
func TestChecksumIsCRC32C(t *testing.T) {
	for payload, want := range map[string]uint32{
		"":                         0,
		"123456789":                0xe3069283,
		strings.Repeat("\x00", 32): 0x8a9136aa,
		strings.Repeat("\xff", 32): 0x62a8ab43,
	} {
		if got := Checksum([]byte(payload)); got != want {
			t.Errorf("Checksum(%q) = %#08x, want %#08x", payload, got, want)
		}
	}
}

// TestEveryFlippedBitIsFound is the paired assertion of Encode and Decode.
func TestEveryFlippedBitIsFound(t *testing.T) {
	g := golden["write"]
	for i := range 8 * (HeaderSize + len(g.payload)) {
		b := encode(g.header, g.payload)
		b[i/8] ^= 1 << (i % 8)
		var h Header
		err := h.Decode(b)
		if err == nil {
			err = h.Check(b[HeaderSize:])
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d of byte %d flipped: %v, want ErrCorrupt", i%8, i/8, err)
		}
	}
}

func TestDecodeRefusesWhatNoPeerSends(t *testing.T) {
	for name, h := range map[string]Header{
		"kind 0":            {},
		"unknown kind":      {Kind: KindRetire + 1},
		"unknown flag":      {Kind: KindFlush, Flags: 1 << 7},
		"giant payload":     {Kind: KindPing, Payload: MaxPayload + 1},
		"range overflows":   {Kind: KindZero, Offset: 1<<64 - 1, Length: 2},
		"write, half of it": {Kind: KindWrite, Length: 4096, Payload: 2048},
		"copy, no data":     {Kind: KindCopy, Length: 4096},
		"half an origin":    {Kind: KindOrigin, Payload: OriginSize / 2},
		"two for one":       {Kind: KindOrigin, Payload: 2 * OriginSize},
		"an origin and":     {Kind: KindOrigins, Payload: OriginSize + 1},
		"a range and":       {Kind: KindRanges, Payload: RangeSize + 1},
	} {
		var b [HeaderSize]byte
		h.Encode(b[:])
		if err := new(Header).Decode(b[:]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// TestGreetingsRefuseWhatNoPeerSends: what is reserved is 0, and lengths are exact.
func TestGreetingsRefuseWhatNoPeerSends(t *testing.T) {
	hello, welcome := golden["hello"].payload, golden["welcome"].payload
	for name, change := range map[string]func(b []byte) []byte{
		"cut short":        func(b []byte) []byte { return b[:len(b)-1] },
		"one byte more":    func(b []byte) []byte { return append(b, 0) },
		"empty":            func(b []byte) []byte { return nil },
		"an unknown flag":  func(b []byte) []byte { b[flagsAt(b)] |= 1 << 7; return b },
		"a reserved byte":  func(b []byte) []byte { b[flagsAt(b)+1] = 1; return b },
		"a boundless name": func(b []byte) []byte { b[58]++; return append(b, make([]byte, 256)...) },
	} {
		if err := new(Hello).Decode(change(bytes.Clone(hello))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("hello, %s: %v, want ErrCorrupt", name, err)
		}
		if len(welcome) <= 42 && name == "a boundless name" {
			continue // it has none
		}
		if err := new(Welcome).Decode(change(bytes.Clone(welcome))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("welcome, %s: %v, want ErrCorrupt", name, err)
		}
	}
}

// flagsAt is where a hello's or a welcome's flags are.
func flagsAt(b []byte) int {
	if len(b) == welcomeSize {
		return 32
	}
	return 56
}

func FuzzHeader(f *testing.F) {
	for _, g := range golden {
		f.Add(encode(g.header, g.payload))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderSize {
			return
		}
		var h Header
		if h.Decode(b) != nil {
			return
		}
		again := make([]byte, HeaderSize)
		h.Encode(again)
		if !bytes.Equal(again, b[:HeaderSize]) {
			t.Errorf("% x decodes and encodes to % x", b[:HeaderSize], again)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(golden["hello"].payload)
	f.Add(golden["welcome"].payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hello
		if h.Decode(b) == nil && !bytes.Equal(h.Append(nil), b) {
			t.Errorf("hello % x does not encode to itself", b)
		}
		var w Welcome
		if w.Decode(b) == nil && !bytes.Equal(w.Append(nil), b) {
			t.Errorf("welcome % x does not encode to itself", b)
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add(golden["ranges"].payload)
	f.Add(golden["origins"].payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for rest := b; len(rest) >= RangeSize; rest = rest[RangeSize:] {
			var r Range
			r.Decode(rest)
			again = r.Append(again)
		}
		if !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("ranges % x encode to % x", b, again)
		}
		again = nil
		for rest := b; len(rest) >= OriginSize; rest = rest[OriginSize:] {
			var o Origin
			o.Decode(rest)
			again = o.Append(again)
		}
		want := bytes.Clone(b[:len(again)])
		for i := range want {
			if i%OriginSize == 24 {
				want[i] &= 1 // the rest is a later version's
			} else if i%OriginSize > 24 {
				want[i] = 0
			}
		}
		if !bytes.Equal(again, want) {
			t.Errorf("origins % x encode to % x", b, again)
		}
	})
}

func BenchmarkHeader(b *testing.B) {
	h := golden["flush"].header
	buf := make([]byte, HeaderSize)
	b.ReportAllocs()
	for b.Loop() {
		h.Encode(buf)
		if err := h.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				Checksum(p)
			}
		})
	}
}
