package mirror

import (
	"slices"
	"testing"
)

func TestOriginsRememberWhatWasApplied(t *testing.T) {
	o := Origins{Whole: true}
	for _, from := range []Origin{{Session: 9, Number: 2}, {Session: 9, Number: 1}, {Session: 4, Number: 7, Lowest: 7}} {
		o.Add(from)
	}
	want := []Origin{{Session: 9, Number: 1}, {Session: 9, Number: 2}, {Session: 4, Number: 7, Lowest: 7}}
	if got := all(o); !slices.Equal(got, want) {
		t.Errorf("remembered %v, want %v", got, want)
	}
	o.Add(Origin{Session: 9, Number: 3, Lowest: 2})
	want = []Origin{{Session: 9, Number: 2, Lowest: 2}, {Session: 9, Number: 3, Lowest: 2}, {Session: 4, Number: 7, Lowest: 7}}
	if got := all(o); !slices.Equal(got, want) {
		t.Errorf("after lowest rose: %v, want %v", got, want)
	}
	o.Add(Origin{Session: 9, Number: 1, Lowest: 1})
	if got := all(o); !slices.Equal(got, want) {
		t.Errorf("what is late and below the lowest changed it to %v", got)
	}
}

// TestOriginsNameNothingThatIsNowhere: an op that waits for a copy was sent to nobody. A
// replica that took it for applied would answer its retry with success.
func TestOriginsNameNothingThatIsNowhere(t *testing.T) {
	o := Origins{Whole: true}
	held, sent, done := &Op{}, &Op{}, &Op{Origin: &Origin{Session: 1, Number: 3}}
	sent.core.seq, done.core.seq = 5, 6
	o.note(Origin{Session: 1, Number: 1}, held)
	o.note(Origin{Session: 1, Number: 2}, sent)
	o.note(*done.Origin, done)
	o.done(done)
	want := []Origin{{Session: 1, Number: 2}, {Session: 1, Number: 3}}
	if got := all(o); !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	c := o.Clone()
	c.Add(Origin{Session: 1, Number: 9})
	if got := all(o); !slices.Equal(got, want) || !c.Whole {
		t.Errorf("its clone is not its own: %v, whole %v", got, c.Whole)
	}
}

func TestOriginsForgetTheOldestSession(t *testing.T) {
	o := Origins{Whole: true}
	for session := range uint64(maxSessions) {
		o.Add(Origin{Session: session, Number: 1})
	}
	if !o.Whole || len(all(o)) != maxSessions {
		t.Fatalf("%d sessions, whole %v", len(all(o)), o.Whole)
	}
	o.Add(Origin{Session: maxSessions, Number: 1})
	got := all(o)
	if o.Whole || len(got) != maxSessions || got[0].Session != 1 {
		t.Errorf("%d sessions from %d on, whole %v; want %d from 1 on, not whole", len(got), got[0].Session, o.Whole, maxSessions)
	}
	if c := o.Clone(); c.Whole {
		t.Error("a clone of what is not whole is")
	}
	for session := range uint64(2 * maxSessions) { // 1 goes on amid clients that come and go
		o.Add(Origin{Session: 1, Number: session + 2, Lowest: session + 2})
		o.Add(Origin{Session: maxSessions + 1 + session, Number: 1})
	}
	if s := o.sessions[1]; s == nil || len(o.sessions) != maxSessions {
		t.Errorf("of %d sessions, the one in use is not", len(o.sessions))
	}
}

// TestOriginsKnowASessionFromAnOpThatHasNoneBeforeIt: who has forgotten everything
// need not refuse the retries of what it saw whole.
func TestOriginsKnowASessionFromAnOpThatHasNoneBeforeIt(t *testing.T) {
	for name, tc := range map[string]struct {
		seen []Origin
		want bool
	}{
		"its first op":               {[]Origin{{Number: 1}}, true},
		"its first op again":         {[]Origin{{Number: 1, Retry: true}}, false},
		"amid others":                {[]Origin{{Number: 8, Lowest: 7}}, false},
		"all before are answered":    {[]Origin{{Number: 8, Lowest: 8}}, true},
		"answered, but sent before":  {[]Origin{{Number: 8, Lowest: 8, Retry: true}}, false},
		"known, and then a retry":    {[]Origin{{Number: 8, Lowest: 8}, {Number: 9, Lowest: 8, Retry: true}}, true},
		"a retry, and then an op":    {[]Origin{{Number: 3, Lowest: 3, Retry: true}, {Number: 4, Lowest: 3}}, false},
		"a retry, answered, then on": {[]Origin{{Number: 3, Lowest: 3, Retry: true}, {Number: 4, Lowest: 4}}, true},
	} {
		var o Origins
		for _, from := range tc.seen {
			from.Session, from.Known = 1, from.opens()
			o.Add(from)
		}
		c := o.Clone()
		for _, from := range all(c) {
			if from.Known != tc.want {
				t.Errorf("%s: known %v, want %v", name, from.Known, tc.want)
			}
		}
		if len(all(c)) == 0 {
			t.Errorf("%s: nothing is remembered", name)
		}
	}
}

// TestOriginsNameASessionWhoseOnlyOpIsNowhere: otherwise the op's retry would be
// refused by a replica that knows that it never had it.
func TestOriginsNameASessionWhoseOnlyOpIsNowhere(t *testing.T) {
	var o Origins
	o.note(Origin{Session: 1, Number: 4, Lowest: 4, Known: true}, &Op{})
	o.note(Origin{Session: 2, Number: 4, Lowest: 3}, &Op{})
	want := []Origin{{Session: 1, Lowest: 4, Known: true}}
	if got := all(o); !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	c := o.Clone()
	if got := all(c); !slices.Equal(got, want) || len(c.sessions[1].numbers) != 0 {
		t.Errorf("a clone names %v, and remembers %v as applied", got, c.sessions[1].numbers)
	}
}

// TestRetriesAfterEverybodyForgot: what was seen whole is done or answered, what was
// not is refused.
func TestRetriesAfterEverybodyForgot(t *testing.T) {
	m := new(Machine)
	for _, tc := range []struct {
		from     Origin
		repeated bool
		err      error
	}{
		{from: Origin{Session: 1, Number: 5, Lowest: 4, Retry: true}, repeated: true, err: ErrForgotten},
		{from: Origin{Session: 1, Number: 6, Lowest: 6}},
		{from: Origin{Session: 1, Number: 7, Lowest: 6, Retry: true}},
		{from: Origin{Session: 1, Number: 5, Lowest: 4, Retry: true}, repeated: true, err: ErrForgotten}, // late
		{from: Origin{Session: 2, Number: 2, Lowest: 1, Retry: true}, repeated: true, err: ErrForgotten},
		{from: Origin{Session: 2, Number: 1, Lowest: 1}},
		{from: Origin{Session: 2, Number: 2, Lowest: 1, Retry: true}},
	} {
		op := &Op{Kind: Write, Origin: &tc.from}
		if got := m.repeated(op); got != tc.repeated || op.Err != tc.err {
			t.Errorf("%+v: dealt with %v, %v; want %v, %v", tc.from, got, op.Err, tc.repeated, tc.err)
		}
	}
}

// BenchmarkOrigins is what an op costs that has 31 others in flight.
func BenchmarkOrigins(b *testing.B) {
	const depth = 32
	o := Origins{Whole: true}
	var ops [depth]Op
	var from [depth]Origin
	b.ReportAllocs()
	for n := uint64(1); b.Loop(); n++ {
		op := &ops[n%depth]
		if n > depth {
			o.done(op)
		}
		op.Origin = &from[n%depth]
		*op.Origin = Origin{Session: 1, Number: n, Lowest: n - min(n-1, depth-1)}
		o.note(*op.Origin, op)
	}
}
