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
	Known   bool   // of Origins: nothing of the session is forgotten
}

// opens says that who sees the op sees all of its session that still counts: it is
// sent for the first time, and so is what comes after it, and the client has the
// answers to all that came before.
func (o Origin) opens() bool { return !o.Retry && o.Number <= max(o.Lowest, 1) }

// maxSessions bounds the sessions that are remembered.
const maxSessions = 4096

// Origins remembers which ops of which sessions were applied. Whole says that
// nothing was forgotten: a retry that is not in it was never applied. Where
// everybody that remembered has restarted, that is known again of a session as soon
// as an op of it came that has none before it.
type Origins struct {
	Whole    bool
	sessions map[uint64]*once
	order    []uint64 // sessions, the next to be forgotten first
}

type once struct {
	lowest  uint64
	known   bool           // nothing from lowest on is forgotten
	used    bool           // since it was last its turn to be forgotten
	numbers map[uint64]*Op // from lowest on; nil: applied
}

// Add notes that an op was applied. One without a number is nothing but the state
// of its session.
func (o *Origins) Add(from Origin) { o.note(from, nil) }

func (o *Origins) note(from Origin, op *Op) {
	s := o.sessions[from.Session]
	if s == nil {
		s = o.begin(from.Session)
	} else {
		s.used = true
	}
	s.known = s.known || from.Known
	s.trim(from.Lowest)
	if from.Number > 0 && from.Number >= s.lowest {
		s.numbers[from.Number] = op
	}
}

// trim forgets what the client has the answers to. Mostly that is one op; looking at
// all would cost every op what is in flight.
func (s *once) trim(lowest uint64) {
	switch {
	case lowest <= s.lowest:
		return
	case lowest-s.lowest <= uint64(len(s.numbers)):
		for n := s.lowest; n < lowest; n++ {
			delete(s.numbers, n)
		}
	default:
		maps.DeleteFunc(s.numbers, func(n uint64, _ *Op) bool { return n < lowest })
	}
	s.lowest = lowest
}

func (o *Origins) begin(session uint64) *once {
	if o.sessions == nil {
		o.sessions = map[uint64]*once{}
	}
	if len(o.order) == maxSessions {
		o.forget()
	}
	s := &once{numbers: map[uint64]*Op{}}
	o.sessions[session] = s
	o.order = append(o.order, session)
	return s
}

// forget makes room for a session. One that is in use gets another turn: however many
// clients come and go, one that stays is remembered.
func (o *Origins) forget() {
	for {
		oldest := o.order[0]
		o.order = o.order[1:]
		s := o.sessions[oldest]
		if !s.used {
			delete(o.sessions, oldest)
			o.Whole = false
			return
		}
		s.used = false
		o.order = append(o.order, oldest)
	}
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

// abandon settles what is known of an op that is about to be given back: this copy has
// it, or not. That is right for whoever leads next from this copy.
func (o *Origins) abandon(op *Op) {
	if op.Origin == nil {
		return
	}
	s := o.sessions[op.Origin.Session]
	if s == nil || s.numbers[op.Origin.Number] != op {
		return
	}
	if op.core.applied && op.Err == nil {
		s.numbers[op.Origin.Number] = nil
	} else {
		delete(s.numbers, op.Origin.Number)
	}
}

// All yields what was applied, or is in line wherever its effect is to be: sessions
// in order, their numbers ascending. An op without a seq was sent nowhere yet. A session
// of which that leaves nothing is named with number 0, if it is known.
func (o *Origins) All(yield func(Origin) bool) {
	for _, session := range o.order {
		s := o.sessions[session]
		numbers := s.everywhere()
		if len(numbers) == 0 && s.known {
			numbers = []uint64{0}
		}
		for _, n := range numbers {
			if !yield(Origin{Session: session, Number: n, Lowest: s.lowest, Known: s.known}) {
				return
			}
		}
	}
}

// everywhere lists what was applied or is in line for it, ascending.
func (s *once) everywhere() (numbers []uint64) {
	for _, n := range slices.Sorted(maps.Keys(s.numbers)) {
		if op := s.numbers[n]; op == nil || op.core.seq != 0 || sabotage.On("early origins") {
			numbers = append(numbers, n)
		}
	}
	return numbers
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
	from.Known = from.opens()
	s := m.origins.sessions[from.Session]
	if s != nil {
		first, known := s.numbers[from.Number]
		switch {
		case known && first == nil:
			m.do(ActComplete, op) // durable too, if it was to be: a promotion ends with a flush of all
			return true
		case known:
			first.core.twins = append(first.core.twins, op)
			return true
		}
	}
	forgotten := !m.origins.Whole && (s == nil || !s.known)
	if from.Retry && forgotten || s != nil && from.Number < s.lowest {
		op.Err = ErrForgotten
		m.do(ActComplete, op)
		return true
	}
	m.origins.note(from, op)
	return false
}
