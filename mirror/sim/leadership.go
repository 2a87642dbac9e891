package sim

import (
	"time"

	"lockstep/mirror/control"
	"lockstep/mirror/internal/sabotage"
)

// leadership is what a leader of the group has in memory, and only for as long as it leads.
type leadership struct {
	round  uint64
	others []progress // by place

	waiting   []waiter // for entries
	verifying []waiter // for rounds

	since     time.Duration // on its own clock
	promise   time.Duration // before then nobody else is made primary in a lone one's place
	takeovers int           // commands that wait for that
}

// progress is what a leader knows of another's log.
type progress struct {
	index, round uint64
	heard        time.Duration
}

// waiter waits for the group to come to a number.
type waiter struct {
	number uint64
	done   func()
}

// promiseTime is how long the leader keeps others from a lone primary's place: longer
// than the lease by more than clocks drift apart.
const promiseTime = leaseTime + leaseTime/4

// lead begins to lead. An entry of its own term commits what is left of earlier ones.
func (v *voter) lead() {
	v.trace("leads in term %d", v.term)
	v.role, v.leader = leading, v.at
	v.leadership = leadership{since: v.now(), others: make([]progress, len(v.g.voters))}
	for i := range v.others {
		v.others[i].heard = v.c.now
	}
	v.c.stats.Elections++
	v.log = &entry{before: v.log, index: v.log.index + 1, term: v.term, state: v.log.state}
	v.broadcast()
	v.c.spring(ambushLead)
}

// contact is when a majority was last heard of.
func (v *voter) contact() time.Duration {
	return time.Duration(v.agreed(func(p *progress) uint64 { return uint64(p.heard) }))
}

// appended takes another's answer: how much of the log it has.
func (v *voter) appended(by place, term, index, round uint64) {
	switch {
	case term > v.term:
		v.follow(term, nowhere)
	case v.role == leading && term == v.term:
		p := &v.others[by]
		p.index, p.round, p.heard = max(p.index, index), max(p.round, round), v.c.now
		v.commit()
		v.verifying = settled(v.verifying, v.agreed(func(p *progress) uint64 { return p.round }))
	}
}

// commit counts: an entry is committed when a majority has it, and it, or one after it,
// is of this term.
func (v *voter) commit() {
	e := v.log.at(v.agreed(func(p *progress) uint64 { return p.index }))
	if e == nil || e.term != v.term || e.index <= v.applied.index {
		return
	}
	v.g.committed(e)
	v.apply(e)
	v.waiting = settled(v.waiting, e.index)
	v.broadcast()
}

// settled tells who waits for no more than a number, and returns the others.
func settled(waiters []waiter, number uint64) (left []waiter) {
	for _, w := range waiters {
		if w.number <= number {
			w.done()
		} else {
			left = append(left, w)
		}
	}
	return left
}

// command puts a command into the log, and answers when it is committed. One that would
// break a promise is held back until that is over.
func (v *voter) command(c control.Command, done func(control.Result)) {
	term := v.term
	left := v.held(c)
	if left == 0 {
		v.enter(c, done)
		return
	}
	v.takeovers++
	v.after(left, func() {
		if v.role == leading && v.term == term {
			v.takeovers--
			v.enter(c, done)
		}
	})
}

func (v *voter) enter(c control.Command, done func(control.Result)) {
	e := &entry{before: v.log, index: v.log.index + 1, term: v.term, command: c}
	e.state, e.result = v.log.state.Apply(c)
	e.state.Events = nil // nobody reads them here
	v.log = e
	v.waiting = append(v.waiting, waiter{e.index, func() { done(e.result) }})
	v.broadcast()
}

// held is how long a command has to wait that makes another node primary in the place
// of a lone one, without its word.
func (v *voter) held(c control.Command) time.Duration {
	in := v.log.volume()
	if !in.Alone() || c.By == in.Primary || c.Primary == in.Primary || c.Node == in.Primary {
		return 0
	}
	until := v.promise
	if !sabotage.On("new leader") {
		until = max(until, v.since+promiseTime)
	}
	return max(0, until-v.now())
}

// renew promises a lone primary its lease. It answers when a majority still follows
// this leader, as it did when the promise was made.
func (v *voter) renew(from string, epoch uint64, done func()) {
	if in := v.log.volume(); in.Primary != from || in.Epoch != epoch || v.takeovers > 0 {
		return
	}
	v.promise = max(v.promise, v.now()+promiseTime)
	v.verifying = append(v.verifying, waiter{v.broadcast(), done})
}
