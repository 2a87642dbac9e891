package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// found is a log of what a drill found.
type found struct {
	mu    sync.Mutex
	lines []string
}

func (f *found) add(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
}

// drilled runs one round in virtual time.
func drilled(t *testing.T, f *fake, kind Kind) (r Result, lines []string, err error) {
	synctest.Test(t, func(t *testing.T) {
		var log found
		d := New(f, Config{Size: int64(len(f.data)), Hold: time.Second, Think: time.Millisecond, Timeout: 2 * time.Second, Log: log.add})
		defer d.Close()
		r, err = d.Round(t.Context(), kind)
		lines = log.lines
	})
	return r, lines, err
}

func TestGoodRound(t *testing.T) {
	f := newFake()
	f.outage, f.resets = 300*time.Millisecond, true
	r, lines, err := drilled(t, f, Kill)
	if err != nil || !r.Good() || len(lines) > 0 {
		t.Fatalf("%+v, %v, %q", r, err, lines)
	}
	// Site b was without the volume for the outage, site a for the whole fault: of a
	// kind that takes a site away b's stall is the volume's.
	if r.Stall < f.outage || r.Stall > f.outage+20*time.Millisecond {
		t.Errorf("stalled for %v, want a little above %v", r.Stall, f.outage)
	}
	if r.Stalls["a"] < time.Second || r.Stall != r.Stalls["b"] {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(f.kinds, []Kind{Kill}) {
		t.Errorf("broken: %v", f.kinds)
	}
}

// TestEverybodysStall: where no site is taken away the worse one counts.
func TestEverybodysStall(t *testing.T) {
	r, _, err := drilled(t, newFake(), Handover)
	if err != nil || r.Stall != r.Stalls["a"] || r.Stall < time.Second {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestBrokenPromisesAreFound: a volume that breaks one is found out, as what it is.
func TestBrokenPromisesAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(*fake)
		want    func(Result) bool
	}{
		"stale reads":   {func(f *fake) { f.stale = true }, func(r Result) bool { return r.TwoPrimaries > 0 && r.Lost == 0 }},
		"lost writes":   {func(f *fake) { f.forgets = true }, func(r Result) bool { return r.Lost > 0 }},
		"damage":        {func(f *fake) { f.damages = true }, func(r Result) bool { return r.Lost == 1 && r.TwoPrimaries == 0 }},
		"unlike copies": {func(f *fake) { f.differs = 3 }, func(r Result) bool { return r.Differing == 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			c.breakIt(f)
			r, lines, err := drilled(t, f, Stop)
			if err != nil || r.Good() || !c.want(r) {
				t.Errorf("%+v, %v", r, err)
			}
			if r.Lost+r.TwoPrimaries > 0 && len(lines) == 0 {
				t.Error("nothing in the log")
			}
		})
	}
}

// TestLossCountsOnce: the next round begins with what is there.
func TestLossCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.forgets = true
		d := New(f, Config{Size: int64(len(f.data)), Hold: time.Second, Think: time.Millisecond, Timeout: 2 * time.Second, Log: func(string) {}})
		defer d.Close()
		if r, err := d.Round(t.Context(), Stop); err != nil || r.Lost == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		f.forgets = false
		if r, err := d.Round(t.Context(), Stop); err != nil || !r.Good() {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestUnsettledRoundFails(t *testing.T) {
	f := newFake()
	f.stuck = true
	if _, _, err := drilled(t, f, Kill); err == nil || !strings.Contains(err.Error(), "settle: not within 2s") {
		t.Errorf("%v", err)
	}
}

// TestInterruptedRoundMends: the fault is taken back before the drill ends.
func TestInterruptedRoundMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := New(f, Config{Size: int64(len(f.data)), Hold: time.Hour, Think: time.Millisecond, Timeout: 2 * time.Second, Log: func(string) {}})
		defer d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Round(ctx, Kill); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if f.down != nil {
			t.Error("it is still broken")
		}
	})
}

func TestStamp(t *testing.T) {
	p := make([]byte, BlockSize)
	if low, high, err := unstamp(p, 1, 5); low != 0 || high != 0 || err != nil {
		t.Errorf("zeroes: %d to %d, %v", low, high, err)
	}
	stamp(p, 1, 5, 7)
	q := make([]byte, BlockSize)
	stamp(q, 1, 5, 8)
	copy(p[sectorSize:], q[sectorSize:]) // torn
	if low, high, err := unstamp(p, 1, 5); low != 7 || high != 8 || err != nil {
		t.Errorf("torn: %d to %d, %v", low, high, err)
	}
	for what, spoil := range map[string]func([]byte){
		"a bit":          func(p []byte) { p[1000] ^= 1 },
		"another block":  func(p []byte) { stamp(p, 1, 6, 7) },
		"another writer": func(p []byte) { stamp(p, 0, 5, 7) },
		"sectors moved":  func(p []byte) { copy(p, p[sectorSize:2*sectorSize]) },
		"half a sector":  func(p []byte) { clear(p[100:sectorSize]) },
	} {
		spoilt := slices.Clone(q)
		spoil(spoilt)
		if _, _, err := unstamp(spoilt, 1, 5); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestModel(t *testing.T) {
	m := newModel(2, 8*BlockSize)
	block := make([]byte, BlockSize)
	m.submit(3)
	m.submit(3)
	m.acknowledged(3, 1)
	for g, good := range map[uint64]bool{0: false, 1: true, 2: true, 3: false} {
		clear(block)
		if g > 0 {
			stamp(block, 1, 3, g)
		}
		if v := m.check(3, 1, block); (v == nil) != good {
			t.Errorf("generation %d: %v", g, v)
		}
	}
	// Generation 2 was read, though never acknowledged: now it must stay.
	stamp(block, 1, 3, 1)
	if m.floor(3) != 2 || m.check(3, m.floor(3), block) == nil {
		t.Error("a read may be taken back")
	}
	m.forgive(3, block)
	if m.floor(3) != 1 {
		t.Errorf("forgiven to %d", m.floor(3))
	}
}

func TestReport(t *testing.T) {
	var results []Result
	for i := range 200 {
		results = append(results, Result{Kind: Kill, Stall: time.Duration(i+1) * time.Millisecond})
	}
	results = append(results, Result{Kind: Handover, Lost: 1, Differing: 2, TwoPrimaries: 3, Stall: 12340 * time.Microsecond})
	got, err := json.Marshal(Rows(results))
	want := `[{"kind":"kill","rounds":200,"lost":0,"differing":0,"two_primaries":0,"stall_ms_p50":100,"stall_ms_p99":198,"stall_ms_max":200},` +
		`{"kind":"handover","rounds":1,"lost":1,"differing":2,"two_primaries":3,"stall_ms_p50":12.3,"stall_ms_p99":12.3,"stall_ms_max":12.3}]`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	var table bytes.Buffer
	if err := WriteTable(&table, results); err != nil || strings.Count(table.String(), "\n") != 4 || !strings.Contains(table.String(), "all faults") {
		t.Errorf("%v\n%s", err, table.String())
	}
}

func TestParseKinds(t *testing.T) {
	if got, err := ParseKinds("all"); err != nil || !slices.Equal(got, Kinds) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseKinds("kill, slow"); err != nil || !slices.Equal(got, []Kind{Kill, Slow}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseKinds("kill,flood"); err == nil || !strings.Contains(err.Error(), "flood") {
		t.Errorf("%v", err)
	}
}
