package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"lockstep/mirror/control"
)

// Times of the simulated group.
const (
	beatInterval = 60 * time.Millisecond
	electionTime = 150 * time.Millisecond // a follower bears silence that long, and up to four times that
	quorumTime   = 600 * time.Millisecond // a leader without a majority bears it
)

// group stands for the raft group: three voters, among them the witness where there
// are two members, and members without a vote, which only learn.
//
// It is raft but for what a simulator can leave out. A log is a chain of entries that
// never change, so its last entry is all of it: whoever takes over a leader's last
// entry has its log, and nothing is left to compare. Elections, commits and answers go
// over the network; a voter's log and vote are on a disk of their own, which is slow
// at times and loses nothing.
type group struct {
	c      *cluster
	voters []*voter // by place; those without a vote, too
	latest *entry   // the last one that was committed, which nobody in the group may know yet
	slow   time.Duration
	won    map[string]bool // of commands by sender and number, what they came to
}

// entry is the last one of a log.
type entry struct {
	before      *entry // nil: committed, as is all before it
	index, term uint64
	command     control.Command
	state       *control.State
	result      control.Result
}

// newer orders logs as elections do.
func (e *entry) newer(o *entry) bool {
	return cmp.Or(cmp.Compare(e.term, o.term), cmp.Compare(e.index, o.index)) > 0
}

// at finds an entry of the log, if it is there and was not cut off.
func (e *entry) at(index uint64) *entry {
	for e != nil && e.index > index {
		e = e.before
	}
	if e == nil || e.index != index {
		return nil
	}
	return e
}

func (e *entry) volume() *control.Volume { return e.state.Volumes[volumeName] }

// role is what a voter is at the moment.
type role int

const (
	following role = iota
	campaigning
	leading
)

const nowhere place = -1

// voter is one process's part in the group.
type voter struct {
	*process
	g       *group
	votes   bool
	learned func() // the configuration that this process knows has changed

	// On its disk.
	term    uint64
	voted   place // in term
	log     *entry
	applied *entry // what its state is of: committed
	saved   *entry // a snapshot

	role     role
	leader   place         // of term, as far as known
	heard    time.Duration // when that was last heard of
	deadline time.Duration // then it wants to lead itself
	support  map[place]bool
	leadership
}

// start is the process's start: what it applied it has again, or only its snapshot.
func (v *voter) start() {
	if v.rand.IntN(2) == 0 {
		v.applied = v.saved
	}
	v.saved = v.applied
	v.heard = -time.Hour
	v.follow(v.term, nowhere)
	v.every(beatInterval, v.tick)
}

// follow begins to follow whoever leads in a term.
func (v *voter) follow(term uint64, leader place) {
	if term > v.term {
		v.term, v.voted = term, nowhere
	}
	v.role, v.leader, v.leadership = following, leader, leadership{}
	v.deadline = v.c.now + v.patience()
}

// patience is how long silence is borne. The witness has less, and so leads most of
// the time: then no site's loss is the leader's.
func (v *voter) patience() time.Duration {
	if v.at == v.c.witness.at {
		return v.between(electionTime, 2*electionTime)
	}
	return v.between(electionTime, 4*electionTime)
}

func (v *voter) tick() {
	switch {
	case v.role == leading && v.c.now-v.contact() > quorumTime:
		v.trace("leads no majority")
		v.follow(v.term, nowhere)
	case v.role == leading:
		v.broadcast()
	case v.votes && v.c.now >= v.deadline:
		v.campaign()
	}
}

func (v *voter) trace(format string, args ...any) {
	if v.c.out != nil {
		v.c.trace("group "+name(v.at), format, args...)
	}
}

// send has another voter do something with a message, if it arrives.
func (v *voter) send(to place, do func(o *voter)) {
	v.c.net.datagram(v.at, to, func() { do(v.g.voters[to]) })
}

func (v *voter) campaign() {
	v.follow(v.term+1, nowhere)
	v.role, v.voted, v.support = campaigning, v.at, map[place]bool{}
	v.trace("wants to lead in term %d", v.term)
	from, term, log := v.at, v.term, v.log
	for _, o := range v.g.voters {
		if o.votes && o != v {
			v.send(o.at, func(o *voter) { o.asked(from, term, log) })
		}
	}
}

// asked votes, or not: not while there is a leader to be heard of.
func (v *voter) asked(from place, term uint64, log *entry) {
	if term < v.term || v.role == leading || v.c.now-v.heard < electionTime {
		return
	}
	if term > v.term {
		v.follow(term, nowhere)
	}
	if v.voted != nowhere && v.voted != from || v.log.newer(log) {
		return
	}
	v.voted = from
	v.deadline = v.c.now + v.patience()
	by := v.at
	v.send(from, func(o *voter) { o.supported(by, term) })
}

func (v *voter) supported(by place, term uint64) {
	if v.role != campaigning || term != v.term {
		return
	}
	v.support[by] = true
	if len(v.support) >= v.g.majority()-1 {
		v.lead()
	}
}

// broadcast tells all others what the log is and how much of it is committed. It
// returns the number of this round, by which answers to it can be told.
func (v *voter) broadcast() uint64 {
	v.round++
	from, term, log, committed, round := v.at, v.term, v.log, v.applied.index, v.round
	for _, o := range v.g.voters {
		if o != v {
			v.send(o.at, func(o *voter) {
				o.write(func() { o.append(from, term, log, committed, round) })
			})
		}
	}
	return v.round
}

// write does something to the log, when the disk has it.
func (v *voter) write(do func()) {
	if v.c.now >= v.g.slow {
		do()
		return
	}
	v.after(v.between(0, time.Second), do)
}

// append takes over a leader's log, and answers.
func (v *voter) append(from place, term uint64, log *entry, committed, round uint64) {
	by, index := v.at, log.index
	if term >= v.term {
		v.follow(term, from)
		v.heard = v.c.now
		if log.newer(v.log) {
			v.log = log
		}
		if e := v.log.at(committed); e != nil && e.index > v.applied.index {
			v.apply(e)
		}
	}
	known := v.term
	v.send(from, func(o *voter) { o.appended(by, known, index, round) })
}

// apply takes in what was committed.
func (v *voter) apply(e *entry) {
	old := v.applied
	v.applied = e
	if v.learned != nil && e.volume().Epoch != old.volume().Epoch {
		v.learned()
	}
}

// majority is how many voters that is.
func (g *group) majority() int {
	votes := 0
	for _, v := range g.voters {
		if v.votes {
			votes++
		}
	}
	return votes/2 + 1
}

// leader is where one leads, in the highest term; the first voter if none does.
func (g *group) leader() place {
	var first, last *voter
	for _, v := range g.voters {
		if v.votes && first == nil {
			first = v
		}
		if v.up && v.role == leading && (last == nil || v.term > last.term) {
			last = v
		}
	}
	return cmp.Or(last, first).at
}

// undecided says whether a proposal of a node's may yet be in force: one is in a log,
// and not known to be committed.
func (g *group) undecided(by string) bool {
	for _, v := range g.voters {
		for e := v.log; e != nil && e.index > g.latest.index; e = e.before {
			if e.command.By == by {
				return true
			}
		}
	}
	return false
}

// committed notes what a leader found that a majority has. However often a command is
// in the log, it came to one thing.
func (g *group) committed(e *entry) {
	old := g.latest
	if e.index <= old.index {
		return
	}
	for x := e; x != nil && x.index > old.index; x = x.before {
		if x.command.Client == "" || x.result.Expired {
			continue
		}
		id := fmt.Sprint(x.command.Client, " ", x.command.Seq)
		if won, known := g.won[id]; known && won != x.result.Won {
			g.c.violate("command %s, a %s of epoch %d, was done again", id, x.command.Kind, x.command.Epoch)
		}
		g.won[id] = x.result.Won
	}
	g.latest, e.before = e, nil
	if v := e.volume(); v.Epoch != old.volume().Epoch {
		g.c.trace("group", "%v, by %s", recordOf(v).Configuration, v.By)
		g.c.spring(ambushConf)
	}
}

// newGroup makes a group that begins with a state.
func newGroup(c *cluster, state *control.State) *group {
	g := &group{c: c, won: map[string]bool{}}
	g.latest = &entry{index: 1, term: 1, state: state}
	processes := []*process{}
	for _, n := range c.nodes {
		processes = append(processes, &n.process)
	}
	for _, p := range append(processes, c.witness) {
		g.voters = append(g.voters, &voter{process: p, g: g, votes: true, term: 1, voted: nowhere, log: g.latest, applied: g.latest, saved: g.latest})
	}
	for len(g.voters) > 3 && g.majority() > 2 { // three of the members and the witness
		v := g.voters[c.net.rand.IntN(len(g.voters))]
		v.votes = false
	}
	return g
}

// agreed is the highest number that a majority has come to, the leader itself included.
func (v *voter) agreed(come func(*progress) uint64) uint64 {
	var all []uint64
	for _, o := range v.g.voters {
		if o.votes && o != v {
			all = append(all, come(&v.others[o.at]))
		}
	}
	slices.Sort(all)
	return all[len(all)-v.g.majority()+1]
}
