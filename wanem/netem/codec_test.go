package netem

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lockstep/wanem"
)

// TestScripts runs the golden messages under testdata. Re-bless them with
// go test ./wanem/netem -rewrite, except the bytes that came from tc.
func TestScripts(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden bytes are those of a little-endian machine")
	}
	verbs := map[string]func(*testing.T, *datadriven.TestData) (string, error){
		"encode": encodeVerb, "link": linkVerb, "tc": tcVerb, "decode": decodeVerb,
	}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			verb, ok := verbs[d.Cmd]
			if !ok {
				t.Fatalf("%s: unknown verb %q", d.Pos, d.Cmd)
			}
			out, err := verb(t, d)
			if err != nil {
				return "error: " + err.Error() + "\n"
			}
			return out
		})
	})
}

// encodeVerb prints the message that Apply sends, and checks that decode reads it.
func encodeVerb(t *testing.T, d *datadriven.TestData) (string, error) {
	c, err := configArgs(t, d)
	if err != nil {
		return "", err
	}
	if err := c.Validate(); err != nil {
		return "", err
	}
	options := encode(c.completed())
	got, err := decode(options)
	if err != nil {
		return "", err
	}
	if again := encode(got); !bytes.Equal(again, options) {
		t.Errorf("%s: decoded and encoded again: %x", d.Pos, again)
	}
	return fmt.Sprintf("%v\n%s", got, wordDump(options)), nil
}

// linkVerb prints both directions of a wanem.Link.
func linkVerb(t *testing.T, d *datadriven.TestData) (string, error) {
	var link wanem.Link
	for _, arg := range d.CmdArgs {
		number, err := strconv.ParseFloat(arg.SingleVal(t), 64)
		if err != nil {
			return "", err
		}
		switch arg.Key {
		case "km":
			link.Distance = wanem.Distance(number) * wanem.Km
		case "jitter_us":
			link.Jitter = time.Duration(number) * time.Microsecond
		case "loss":
			link.Loss = number
		case "rate":
			link.RateBits = uint64(number)
		case "asymmetry":
			link.Asymmetry = number
		}
	}
	forward, back := ForLink(link)
	return fmt.Sprintf("forward %v\nback    %v\n", forward.withLimit(), back.withLimit()), nil
}

// tcVerb holds a message as tc sends it. Ours for the same configuration must
// be the same, but for the delays: tc's are in ticks, ours in nanoseconds.
func tcVerb(t *testing.T, d *datadriven.TestData) (string, error) {
	c, err := configArgs(t, d)
	if err != nil {
		return "", err
	}
	theirs, err := hex.DecodeString(strings.Join(strings.Fields(d.Input), ""))
	if err != nil {
		return "", err
	}
	a, err := parseAttrs(theirs[tcmsgLen:])
	if err != nil {
		return "", err
	}
	decoded, err := decode(a[attrOptions])
	if err != nil {
		return "", err
	}
	for _, delay := range []struct{ got, want time.Duration }{{decoded.Delay, c.Delay}, {decoded.Jitter, c.Jitter}} {
		if off := delay.want - delay.got; off < 0 || off >= tickNanos {
			t.Errorf("%s: decoded %v, want %v to a tick", d.Pos, delay.got, delay.want)
		}
	}
	clear(a[attrOptions][:4])          // latency in ticks
	clear(a[attrOptions][20:qoptSize]) // jitter in ticks
	c.Delay, c.Jitter = 0, 0
	if ours := message(1, Handle<<16, encode(c)); !bytes.Equal(ours, theirs) {
		t.Errorf("%s: not as tc:\nours   %x\ntheirs %x", d.Pos, ours, theirs)
	}
	return decoded.String() + "\n", nil
}

// decodeVerb prints what decode makes of bytes that nobody should send.
func decodeVerb(_ *testing.T, d *datadriven.TestData) (string, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(d.Input), ""))
	if err != nil {
		return "", err
	}
	c, err := decode(b)
	return c.String() + "\n", err
}

func configArgs(t *testing.T, d *datadriven.TestData) (c Config, err error) {
	for _, arg := range d.CmdArgs {
		value := arg.SingleVal(t)
		switch arg.Key {
		case "delay":
			c.Delay, err = time.ParseDuration(value)
		case "jitter":
			c.Jitter, err = time.ParseDuration(value)
		case "loss":
			c.Loss, err = strconv.ParseFloat(value, 64)
		case "enter":
			c.Bursts.Enter, err = strconv.ParseFloat(value, 64)
		case "leave":
			c.Bursts.Leave, err = strconv.ParseFloat(value, 64)
			c.Bursts.LossBad = 1
		case "reorder":
			c.Reorder, err = strconv.ParseFloat(value, 64)
		case "gap":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			c.ReorderGap = uint32(n)
		case "duplicate":
			c.Duplicate, err = strconv.ParseFloat(value, 64)
		case "corrupt":
			c.Corrupt, err = strconv.ParseFloat(value, 64)
		case "rate":
			c.RateBits, err = strconv.ParseUint(value, 10, 64)
		case "limit":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			c.Limit = uint32(n)
		case "seed":
			c.Seed, err = strconv.ParseUint(value, 0, 64)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// wordDump writes bytes as lines of four 32-bit words.
func wordDump(b []byte) string {
	var out strings.Builder
	for i := 0; i < len(b); i += 4 {
		separator := " "
		if i%16 == 12 || i+4 >= len(b) {
			separator = "\n"
		}
		fmt.Fprintf(&out, "%x%s", b[i:i+4], separator)
	}
	return out.String()
}

func TestBurstsLoseTheShareThatWasAsked(t *testing.T) {
	for _, loss := range []float64{0, 0.001, 0.01, 0.3} {
		for _, length := range []float64{1, 4, 100} {
			c := Config{Bursts: Bursts(loss, length)}
			if got := c.MeanLoss(); math.Abs(got-loss) > 1e-12 {
				t.Errorf("Bursts(%v, %v) loses %v", loss, length, got)
			}
		}
	}
}

// TestReorderSendsTheShareThatWasAsked plays the kernel's counter: packets up to
// the gap wait, each one after that is sent at once with the probability.
func TestReorderSendsTheShareThatWasAsked(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []Config{{}, {Reorder: 0.25}, {Reorder: 0.25, ReorderGap: 1}, {Reorder: 1, ReorderGap: 5}, {Reorder: 0.1, ReorderGap: 20}} {
		const packets = 200_000
		atOnce, waited := 0.0, uint32(0)
		for range packets {
			if c.Reorder == 0 || waited+1 < c.ReorderGap || rng.Float64() >= c.Reorder {
				waited++
				continue
			}
			atOnce, waited = atOnce+1, 0
		}
		if got := c.MeanReorder(); math.Abs(got-atOnce/packets) > 0.005 {
			t.Errorf("%v: MeanReorder %v, played %v", c, got, atOnce/packets)
		}
	}
}

// FuzzDecode feeds decode and parseQdisc what a kernel never would. What does
// decode must survive being encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for _, c := range []Config{{}, {Delay: time.Millisecond, Jitter: 1, Loss: 0.1, Limit: 9, Seed: 7},
		{RateBits: 100_000_000_000, Bursts: Bursts(0.01, 4)},
		{Delay: 1, Reorder: 0.5, ReorderGap: 3, Duplicate: 0.25, Corrupt: 1}} {
		f.Add(encode(c))
		f.Add(message(1, Handle<<16, encode(c)))
	}
	f.Add(append(make([]byte, qoptSize), 5, 0, 1, 0, 9, 0)) // padding is cut off
	f.Fuzz(func(t *testing.T, b []byte) {
		parseQdisc(b) // must not panic
		c, err := decode(b)
		if err != nil || c.Validate() != nil {
			return
		}
		again, err := decode(encode(c))
		if err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}
