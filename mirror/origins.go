package mirror

import (
	"maps"
	"slices"

	"lockstep/mirror/internal/sabotage"
)

// Origin names an op of a client that may have to send it again to another
// primary, so that it is applied once.
type Origin struct {
	Session uint64 // the client's, never used again
	Number  uint64 // of the op in its session
	Lowest  uint64 // the client has the answers to all numbers below this
	Retry   bool   // it was sent before
}

// maxSessions bounds the sessions that are remembered.
const maxSessions = 4096

// Origins remembers which ops of which sessions were applied. Whole says that
// nothing was forgotten: a retry that is not in it was never applied.
type Origins struct {
	Whole    bool
	sessions map[uint64]*once
	order    []uint64 // sessions by age
}

type once struct {
	lowest  uint64
	numbers map[uint64]*Op // nil: applied
}

// Add notes that an op was applied.
func (o *Origins) Add(from Origin) { o.note(from, nil) }

func (o *Origins) note(from Origin, op *Op) {
	s := o.sessions[from.Session]
	if s == nil {
		s = o.begin(from.Session)
	}
	if from.Lowest > s.lowest {
		s.lowest = from.Lowest
		for n := range s.numbers {
			if n < s.lowest {
				delete(s.numbers, n)
			}
		}
	}
	if from.Number >= s.lowest {
		s.numbers[from.Number] = op
	}
}

func (o *Origins) begin(session uint64) *once {
	if o.sessions == nil {
		o.sessions = map[uint64]*once{}
	}
	if len(o.order) == maxSessions {
		delete(o.sessions, o.order[0])
		o.order = o.order[1:]
		o.Whole = false
	}
	s := &once{numbers: map[uint64]*Op{}}
	o.sessions[session] = s
	o.order = append(o.order, session)
	return s
}

// done notes that op is applied everywhere.
func (o *Origins) done(op *Op) {
	if op.Origin == nil {
		return
	}
	if s := o.sessions[op.Origin.Session]; s != nil {
		if _, ok := s.numbers[op.Origin.Number]; ok {
			s.numbers[op.Origin.Number] = nil
		}
	}
}

// All yields what was applied, or is in line wherever its effect is to be: sessions by
// age, their numbers ascending. An op without a seq was sent nowhere yet.
func (o *Origins) All(yield func(Origin) bool) {
	for _, session := range o.order {
		s := o.sessions[session]
		for _, n := range slices.Sorted(maps.Keys(s.numbers)) {
			if op := s.numbers[n]; op != nil && op.core.seq == 0 && !sabotage.On("early origins") {
				continue
			}
			if !yield(Origin{Session: session, Number: n, Lowest: s.lowest}) {
				return
			}
		}
	}
}

// Clone returns a copy of All.
func (o *Origins) Clone() Origins {
	c := Origins{Whole: o.Whole}
	for from := range o.All {
		c.Add(from)
	}
	return c
}

// repeated deals with an op that came before, and says whether it did.
func (m *Machine) repeated(op *Op) bool {
	if op.Origin == nil || op.Origin.Retry && sabotage.On("twice") {
		return false
	}
	from := *op.Origin
	s := m.origins.sessions[from.Session]
	if s != nil {
		first, known := s.numbers[from.Number]
		switch {
		case known && first == nil:
			m.do(ActComplete, op)
			return true
		case known:
			first.core.twins = append(first.core.twins, op)
			return true
		}
	}
	if from.Retry && !m.origins.Whole || s != nil && from.Number < s.lowest {
		op.Err = ErrForgotten
		m.do(ActComplete, op)
		return true
	}
	m.origins.note(from, op)
	return false
}
