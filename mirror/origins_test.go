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
}
