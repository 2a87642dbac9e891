package mirror

import (
	"errors"
	"fmt"
)

// ErrFailed is wrapped by the error of every write to a volume whose primary
// copy could not take one: the copies may differ there, so the volume takes no
// more writes until it is opened again, which makes them equal.
var ErrFailed = errors.New("the volume takes no more writes: its local store failed; mend the store and restart")

// ReplicaID numbers a volume's remote replicas from 0 in the order in which the
// configuration names them.
type ReplicaID int

// Configuration is what the primary acts under. Today flags fix it for a run;
// the raft group of mirror/control will commit its changes, each with a new
// epoch, and hand them to the machine as an event.
type Configuration struct {
	Epoch    uint64 // at least 1
	Replicas int    // remote replicas in the in-sync set
	Durable  bool   // every write is acknowledged from stable storage
}

// EventKind says what happened.
type EventKind uint8

// What a Machine can be told.
const (
	EvSubmit  EventKind = iota // a client asks for Op
	EvApplied                  // the local store did Op, or failed with Err
	EvSynced                   // the local store made Op durable, or failed with Err
	EvAcked                    // Replica applied every seq to Applied and made durable every seq to Durable
	EvCompare                  // Replica, which is down, is about to be made equal to the local store
	EvUp                       // Replica is connected; it has what it acknowledged, or was made equal since EvCompare
	EvDown                     // Replica is gone: what it did not acknowledge waits
)

// Event is one thing that happened. Only the fields that its kind names count.
type Event struct {
	Kind             EventKind
	Op               *Op
	Err              error
	Replica          ReplicaID
	Applied, Durable uint64
}

// ActionKind says what is to be done.
type ActionKind uint8

// What a Machine can ask for.
const (
	ActApply     ActionKind = iota // do Op on the local store, then tell EvApplied
	ActSync                        // make Op durable locally, then tell EvSynced
	ActSend                        // send Op to Replica, after all that was sent before
	ActSendFlush                   // send Replica a flush that carries Op's seq: it applied Op already, and Op must be durable
	ActComplete                    // give Op back to the client
)

// Action is one thing to do. Sends to one replica must keep their order;
// everything else may be done in any order and in parallel.
type Action struct {
	Kind    ActionKind
	Op      *Op
	Replica ReplicaID
}

// Machine is the primary's replication protocol for one volume: a pure state
// machine. It has no goroutines, clock, disk or network; the same events always
// give the same actions. It is not safe for concurrent use.
type Machine struct {
	conf     Configuration
	replicas []replica
	window   window   // ops that have a seq and are not complete, and those among them
	active   conflict // every op that others must be ordered against
	failed   error
	actions  []Action
}

// replica is what the primary knows of one remote replica.
//
//	  +------------ EvUp -----------+
//	  |                             v
//	down --EvCompare--> comparing   up --EvDown--> down
//	  ^                  |    |     ^
//	  +----- EvDown -----+    +EvUp-+
//
// Learner and suspect come between them with resync.
type replica struct {
	up        bool
	comparing bool
	applied   uint64
	durable   uint64
}

// MaxReplicas bounds a configuration: a bit each in an op's state.
const MaxReplicas = 16

// opState is an op's progress. A read is executed once nothing before it that
// overlaps is incomplete; a write is applied locally once nothing before it that
// overlaps is still being applied or read.
type opState struct {
	seq     uint64 // 0: a read
	blocked int    // earlier ops that this one waits for before it may be applied
	pending int    // acknowledgements outstanding: one local, one a replica
	acked   uint16 // a bit for each replica that acknowledged it
	carried uint16 // a bit for each replica whose comparison began after it was applied
	durable bool   // acknowledgements must be from stable storage
	applied bool   // done locally
	err     error  // of the local application, on its way to the machine
	encoded bool   // its frame is made
	waiters []*Op  // later ops that wait for this one

	prev, next *Op // in the conflict list
}

// NewMachine starts a volume with every replica down and nothing in flight.
func NewMachine(conf Configuration) *Machine {
	m := &Machine{conf: conf, replicas: make([]replica, conf.Replicas)}
	m.window.first = 1
	return m
}

// Watermark is the highest seq such that it and every lower one are complete.
func (m *Machine) Watermark() uint64 { return m.window.first - 1 }

// InFlight is the number of ops that have a seq above the watermark.
func (m *Machine) InFlight() int { return m.window.len() }

// Suspended says whether a replica is down, so that no write can complete.
func (m *Machine) Suspended() bool {
	for i := range m.replicas {
		if !m.replicas[i].up {
			return true
		}
	}
	return false
}

// Step takes one event and returns what to do about it. The slice is valid
// until the next Step.
func (m *Machine) Step(ev Event) []Action {
	m.actions = m.actions[:0]
	switch ev.Kind {
	case EvSubmit:
		m.submit(ev.Op)
	case EvApplied:
		m.applied(ev.Op, ev.Err)
	case EvSynced:
		m.failure(ev.Op, ev.Err)
		m.acknowledge(ev.Op)
	case EvAcked:
		m.acked(ev.Replica, ev.Applied, ev.Durable)
	case EvUp:
		m.up(ev.Replica)
	case EvCompare:
		m.compare(ev.Replica)
	case EvDown:
		m.replicas[ev.Replica].up, m.replicas[ev.Replica].comparing = false, false
	default:
		panic(fmt.Sprintf("mirror: unknown event %d", ev.Kind))
	}
	return m.actions
}

func (m *Machine) do(kind ActionKind, op *Op) {
	m.actions = append(m.actions, Action{Kind: kind, Op: op})
}

func (m *Machine) submit(op *Op) {
	if op.Kind != Read && m.failed != nil {
		op.Err = m.failed
		m.do(ActComplete, op)
		return
	}
	if op.Kind == Read {
		op.core.pending = 1
	} else {
		op.core.seq = m.window.push(op)
		op.core.pending = 1 + len(m.replicas)
		op.core.durable = op.FUA || op.Kind == Flush || (m.conf.Durable && op.modifies())
		m.send(op)
	}
	if op.Kind != Flush {
		m.active.add(op)
	}
	switch {
	case op.Kind == Flush:
		op.core.applied = true
		m.do(ActSync, op)
	case op.core.blocked == 0:
		m.do(ActApply, op)
	}
}

// abandon gives back every op in flight, in no order, and leaves the machine
// unusable.
func (m *Machine) abandon(give func(*Op)) {
	for seq := m.window.first; seq <= m.window.last(); seq++ {
		if op := m.window.at(seq); op != nil {
			give(op)
		}
	}
	for op := m.active.head; op != nil; op = op.core.next {
		if op.Kind == Read {
			give(op)
		}
	}
	m.window, m.active = window{first: 1}, conflict{}
}

func (m *Machine) send(op *Op) {
	for i := range m.replicas {
		if m.replicas[i].up {
			m.actions = append(m.actions, Action{Kind: ActSend, Op: op, Replica: ReplicaID(i)})
		}
	}
}

func (m *Machine) applied(op *Op, err error) {
	op.core.applied = true
	m.failure(op, err)
	if op.modifies() {
		m.release(op, false)
		if op.core.durable && err == nil {
			m.do(ActSync, op)
			return
		}
	}
	m.acknowledge(op)
}

// failure remembers the first error of op. A write or sync that failed locally
// may have left the copies different, so the volume stops taking writes.
func (m *Machine) failure(op *Op, err error) {
	if err == nil {
		return
	}
	if op.Err == nil {
		op.Err = err
	}
	if op.Kind != Read && m.failed == nil {
		m.failed = fmt.Errorf("%w (%w)", ErrFailed, err)
	}
}

func (m *Machine) acked(id ReplicaID, applied, durable uint64) {
	r := &m.replicas[id]
	// An ack that runs ahead of what was sent is not this volume's.
	applied = min(applied, m.window.last())
	durable = min(durable, applied)
	wasApplied, wasDurable := r.applied, r.durable
	r.applied, r.durable = max(applied, wasApplied), max(durable, wasDurable)
	m.acknowledgeRange(id, wasApplied, r.applied, false)
	m.acknowledgeRange(id, wasDurable, r.durable, true)
}

// acknowledgeRange counts a replica's acknowledgement for each op with a seq
// above from and at or below to that asks for this kind.
func (m *Machine) acknowledgeRange(id ReplicaID, from, to uint64, durable bool) {
	for seq := max(from+1, m.window.first); seq <= to; seq++ {
		if op := m.window.at(seq); op != nil && op.core.durable == durable {
			m.acknowledgeBy(op, id)
		}
	}
}

func (m *Machine) acknowledgeBy(op *Op, id ReplicaID) {
	if bit := uint16(1) << id; op.core.acked&bit == 0 {
		op.core.acked |= bit
		m.acknowledge(op)
	}
}

// acknowledge counts one of the acknowledgements that op waits for.
func (m *Machine) acknowledge(op *Op) {
	op.core.pending--
	if op.core.pending > 0 {
		return
	}
	if op.Kind != Flush {
		m.active.remove(op)
		m.release(op, true)
	}
	if op.core.seq != 0 {
		m.window.complete(op.core.seq)
	}
	m.do(ActComplete, op)
}

// release lets those go that wait for op: at its local application the writes,
// at its completion the reads (and whatever waits for a read).
func (m *Machine) release(op *Op, complete bool) {
	kept := op.core.waiters[:0]
	for _, w := range op.core.waiters {
		if !complete && w.Kind == Read {
			kept = append(kept, w)
			continue
		}
		if w.core.blocked--; w.core.blocked == 0 {
			m.do(ActApply, w)
		}
	}
	op.core.waiters = kept
}

// compare prepares for the replica to be overwritten with the local copy, range by
// range and in no order that the machine knows. What is applied locally by now is
// carried over by that. What is not must be sent afterwards, even if the replica
// had acknowledged it: the comparison may undo it there.
func (m *Machine) compare(id ReplicaID) {
	r, bit := &m.replicas[id], uint16(1)<<id
	r.comparing = true
	r.applied, r.durable = m.Watermark(), m.Watermark()
	for seq := m.window.first; seq <= m.window.last(); seq++ {
		op := m.window.at(seq)
		switch {
		case op == nil:
		case op.core.applied:
			op.core.carried |= bit
		case op.core.acked&bit != 0:
			op.core.acked &^= bit
			op.core.pending++
		}
	}
}

// compared takes what the comparison carried over, and made durable, as
// acknowledged.
func (m *Machine) compared(id ReplicaID) {
	m.replicas[id].comparing = false
	bit := uint16(1) << id
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		if op := m.window.at(seq); op != nil && op.core.carried&bit != 0 {
			op.core.carried &^= bit
			m.acknowledgeBy(op, id)
		}
	}
}

// up sends a replica all that it has not acknowledged, in order. What it
// applied but has not made durable goes as a flush: sending the data again
// could put it on top of a later write that was completed since.
func (m *Machine) up(id ReplicaID) {
	r, bit := &m.replicas[id], uint16(1)<<id
	r.up = true
	if r.comparing {
		m.compared(id)
	}
	for seq := m.window.first; seq <= m.window.last(); seq++ {
		op := m.window.at(seq)
		if op == nil || op.core.acked&bit != 0 {
			continue
		}
		switch {
		case seq > r.applied:
			m.actions = append(m.actions, Action{Kind: ActSend, Op: op, Replica: id})
		default:
			m.actions = append(m.actions, Action{Kind: ActSendFlush, Op: op, Replica: id})
		}
	}
}
