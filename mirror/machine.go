package mirror

import (
	"errors"
	"fmt"
	"time"

	"lockstep/mirror/dirty"
)

// Errors that a machine gives ops back with.
var (
	// ErrFailed: the primary's copy could not take a write or a sync, so the
	// copies may differ there. Nothing more is taken until the volume is opened
	// again, which makes them equal.
	ErrFailed = errors.New("the volume takes no more writes: its local store failed; mend the store and restart")
	// ErrDeposed: another member is primary now. Whether the op took effect is not
	// known here; ask the new one.
	ErrDeposed = errors.New("this node is no longer the volume's primary")
	// ErrBetterCopy: this copy lost its page cache with its machine's power, and
	// another in-sync replica did not: that one has every acknowledged write.
	ErrBetterCopy = errors.New("this copy may lack acknowledged writes (its machine went down uncleanly); a replica has them all: serve that one's store, or give up what is missing (--accept-data-loss)")
	// ErrForgotten: an op was sent again after a failover, and whether it was applied
	// before is not known here. Its outcome is unknown, as of any failed write.
	ErrForgotten = errors.New("whether this retried request was applied before is not known; its outcome is unknown")
)

// MachineConfig is what a Machine acts under beside the configuration.
type MachineConfig struct {
	Self    ReplicaID
	Members Set // every replica of the volume, Self included
	// Durable is the contract `durable`: every write is acknowledged from stable
	// storage. Else it is `written`.
	Durable bool
	// Suspend completes writes only while every member that is wanted is in sync.
	// Otherwise a member that is lost for LossTimeout is taken out of the in-sync set.
	Suspend bool
	// Wanted are the members that writes wait for under Suspend; who joins the in-sync set
	// is wanted from then on. Default: Members.
	Wanted      Set
	LossTimeout time.Duration
	// Lease is how long a replica's promise not to take over holds, from when the
	// heartbeat that it answered was sent. 0: nobody else can become primary, and
	// none is needed. It must be less than the replicas' grace by more than clocks
	// drift apart in that time.
	Lease time.Duration

	Size   int64 // of the volume, bytes
	Block  int64 // granularity of what a replica missed, bytes
	Region int64 // granularity of what may differ, bytes
}

// EventKind says what happened.
type EventKind uint8

// What a Machine can be told.
const (
	EvCommitted EventKind = iota // Conf is in force. The first one begins the promotion, with Own and OutOfSync
	EvSubmit                     // a client asks for Op
	EvApplied                    // the local store did Op, or failed with Err
	EvSynced                     // the local store made Op durable, or failed with Err
	EvUp                         // Replica is connected; State is what it said
	EvDown                       // Replica is gone
	EvAcked                      // Replica applied every seq to Applied and made durable every seq to Durable
	EvQueued                     // Copy's data was read and is in line for its replica, or Err
	EvCopied                     // Copy's replica has it
	EvCompared                   // Copy was compared: Copy.Differs; or Err
	EvFinished                   // Replica is flushed, and marked as a full copy
	EvRecheck                    // compare Copy with its range quiesced, and repair it if Copy.Repair
	EvLease                      // Replica answered a heartbeat sent at SentAt; Self: the configuration service did
	EvStop                       // the driver gives up, for the reason Err
	EvTick                       // time passes; each replica may be sent Budget more bytes by resync
)

// Event is one thing that happened. Only the fields that its kind names count,
// and Now: the time since some moment, on a clock that never goes back.
type Event struct {
	Kind             EventKind
	Now              time.Duration
	Op               *Op
	Err              error
	Replica          ReplicaID
	Applied, Durable uint64
	Conf             Configuration
	Gone             Set // EvCommitted: members that are none any more, from Conf on
	Own              *Promotion
	State            *ReplicaState
	Copy             *Copy
	SentAt           time.Duration
	Budget           int64
}

// ReplicaState is what a replica says of itself when it connects.
type ReplicaState struct {
	Complete bool // a full copy, as far as it knows
	Lossy    bool // it was one until its machine lost power: what is lost lies in Intents
	Known    bool // of this volume, and the same store as before
	// What may differ on it from other in-sync copies: the writes above its
	// watermark if it remembers them, else its write-intent bitmap.
	Written []Range
	Intents *dirty.Map
}

// Promotion is what a new primary knows of its own copy and of the others.
type Promotion struct {
	State ReplicaState
	// Before is the configuration that this one replaced. Who was in sync there and
	// is not any more misses what was above the watermark, and no more.
	Before Configuration
	// OutOfSync are the bitmaps for members not in sync that this node kept as the
	// primary of Before; without one, a member is compared in full.
	OutOfSync map[ReplicaID]*dirty.Map
	Origins   Origins
}

// Range is a range of the volume in bytes.
type Range struct{ Off, Len int64 }

func (r Range) end() int64 { return r.Off + r.Len }

// ActionKind says what is to be done.
type ActionKind uint8

// What a Machine can ask for.
const (
	ActApply     ActionKind = iota // do Op on the local store, then tell EvApplied
	ActSync                        // make Op durable locally, then tell EvSynced
	ActSend                        // send Op to Replica, after all that was sent before
	ActSendFlush                   // send Replica a flush that carries Op's seq: it applied Op already, and Op must be durable
	ActComplete                    // give Op back to the client
	ActPropose                     // ask for Conf to follow the epoch before it; tell EvCommitted with what is in force then
	ActConfigure                   // tell Replica the configuration Conf and its place in it
	ActOrigins                     // send Replica Origins
	ActCopy                        // read Copy's range locally and put it in line for its replica; tell EvQueued in the same step, later EvCopied
	ActCompare                     // compare Copy's range by digest; tell EvCompared
	ActFinish                      // have Replica flush and mark itself a full copy; tell EvFinished
	ActRechecked                   // EvRecheck's Copy is done: Differs, Err
	ActStop                        // this machine has ended, for the reason Err: close what is open, then Abandon
)

// Action is one thing to do. What goes to one replica must keep its order;
// everything else may be done in any order and in parallel.
type Action struct {
	Kind    ActionKind
	Op      *Op
	Replica ReplicaID
	Conf    Configuration
	Learner bool // ActConfigure: Replica is one
	Copy    *Copy
	Origins *Origins // ActOrigins: as of now
	Err     error
}

// Machine is the primary's replication protocol for one volume: a pure state
// machine. It has no goroutines, clock, disk or network; the same events always
// give the same actions. It is not safe for concurrent use.
//
//	new --EvCommitted--> promoting --in-sync replicas agree--> serving --> stopped
//
// While it is promoting ops wait, and the replicas in sync are made to agree on
// all that may differ among them; its own copy is the truth.
type Machine struct {
	conf    MachineConfig
	current Configuration
	now     time.Duration

	serving     bool
	ownComplete bool // this copy lost nothing with its machine's power
	stopped     error
	failed      error
	proposal    *Configuration
	required    Set  // writes wait for these
	open        bool // writes may complete

	others  []ReplicaID // every member but this one
	members [MaxReplicas]member
	window  window   // ops that have a seq and are not complete, and those among them
	active  conflict // every op that others must be ordered against
	parked  []*Op    // came while promoting
	copies  []*Copy  // writes to their ranges wait
	unread  []*Op    // reads whose data is there and whose lease is not
	union   differences
	dropped Set // left the in-sync set with the promotion
	wanted  Set // under Suspend
	gone    Set // are no members any more: nothing is sent to them, and nobody waits for them
	origins Origins
	lease   time.Duration // the configuration service's promise
	actions []Action
}

// opState is an op's progress. A read is executed once nothing before it that
// overlaps is incomplete; a write is applied locally once nothing before it that
// overlaps is still being applied or read.
type opState struct {
	seq     uint64 // 0: a read
	blocked int    // earlier ops that this one waits for before it may be applied
	acked   Set    // members that acknowledged it
	sent    Set    // members that were sent it
	durable bool   // acknowledgements must be from stable storage
	applied bool   // done locally
	local   bool   // done locally, and durably if it must be
	err     error  // of the local application, on its way to the machine
	encoded bool   // its frame is made
	waiters []*Op  // later ops that wait for this one
	twins   []*Op  // retries of this op
	copy    *Copy  // the op is this copy's place in the order

	prev, next *Op // in the conflict list
}

// NewMachine starts a volume with every replica down and nothing in flight. It
// does nothing before its first EvCommitted.
func NewMachine(conf MachineConfig) *Machine {
	m := &Machine{conf: conf, wanted: conf.Wanted}
	if m.wanted == 0 {
		m.wanted = conf.Members
	}
	m.window.first = 1
	m.union = newDifferences(conf)
	for id := ReplicaID(0); id < MaxReplicas; id++ {
		if id != conf.Self && conf.Members.Has(id) {
			m.others = append(m.others, id)
			m.members[id].differences = newDifferences(conf)
		}
	}
	return m
}

// Watermark is the highest seq such that it and every lower one are complete.
func (m *Machine) Watermark() uint64 { return m.window.first - 1 }

// LastSeq is the highest seq given out.
func (m *Machine) LastSeq() uint64 { return m.window.last() }

// InFlight is the number of ops that have a seq above the watermark.
func (m *Machine) InFlight() int { return m.window.len() }

// Configuration is the one in force as far as the machine knows.
func (m *Machine) Configuration() Configuration { return m.current }

// Serving says whether the promotion is over and the machine has not stopped.
func (m *Machine) Serving() bool { return m.serving && m.stopped == nil }

// Ready says whether writes are taken and can complete: all that they wait for is
// connected.
func (m *Machine) Ready() bool {
	for _, id := range m.others {
		if m.required.Has(id) && m.members[id].standing == lost {
			return false
		}
	}
	return m.Serving() && m.open && m.failed == nil
}

// Failed is why writes are refused for good, or nil.
func (m *Machine) Failed() error { return m.failed }

// Step takes one event and returns what to do about it. The slice is valid
// until the next Step.
func (m *Machine) Step(ev Event) []Action {
	m.actions = m.actions[:0]
	m.now = max(m.now, ev.Now)
	if m.stopped != nil {
		m.stepStopped(ev)
		return m.actions
	}
	switch ev.Kind {
	case EvSubmit:
		m.submit(ev.Op)
	case EvApplied:
		m.applied(ev.Op, ev.Err)
	case EvSynced:
		m.synced(ev.Op, ev.Err)
	case EvAcked:
		m.acked(ev.Replica, ev.Applied, ev.Durable)
	case EvCommitted:
		m.committed(ev)
	case EvUp:
		m.up(ev.Replica, ev.State)
	case EvDown:
		m.down(ev.Replica)
	case EvQueued:
		m.queued(ev.Copy, ev.Err)
	case EvCopied:
		m.copied(ev.Copy)
	case EvCompared:
		m.compared(ev.Copy, ev.Err)
	case EvFinished:
		m.finished(ev.Replica)
	case EvRecheck:
		m.recheck(ev.Copy)
	case EvLease:
		m.leased(ev.Replica, ev.SentAt)
	case EvStop:
		m.stop(ev.Err)
	case EvTick:
		m.tick(ev.Budget)
	default:
		panic(fmt.Sprintf("mirror: unknown event %d", ev.Kind))
	}
	return m.actions
}

// stepStopped refuses new ops; those in flight wait for Abandon.
func (m *Machine) stepStopped(ev Event) {
	switch ev.Kind {
	case EvSubmit:
		ev.Op.Err = m.refusal()
		m.do(ActComplete, ev.Op)
	case EvRecheck:
		ev.Copy.Err = m.stopped
		m.rechecked(ev.Copy)
	}
}

// refusal is what ops come to that arrive after the end. In a group, whoever leads next
// does them, whatever ended this volume.
func (m *Machine) refusal() error {
	if m.conf.Lease > 0 && !errors.Is(m.stopped, ErrDeposed) && !errors.Is(m.stopped, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrDeposed, m.stopped)
	}
	return m.stopped
}

func (m *Machine) stop(err error) {
	m.stopped = err
	m.actions = append(m.actions, Action{Kind: ActStop, Err: err})
	for _, id := range m.others {
		for _, c := range m.members[id].flying {
			if c.Kind == Recheck && !c.over {
				c.over, c.Err = true, err
				m.rechecked(c)
			}
		}
	}
}

// Abandon gives back every op in flight, in no order, and leaves the machine
// unusable. Their outcome is unknown.
func (m *Machine) Abandon(give func(*Op)) {
	var all []*Op // first, because an op that was given is not ours to look at
	m.inFlight(func(op *Op) {
		m.origins.abandon(op)
		all = append(all, op)
	})
	if m.stopped == nil {
		m.stopped = ErrClosed
	}
	m.window, m.active, m.parked, m.copies, m.unread = window{first: 1}, conflict{}, nil, nil, nil
	each(all, give)
}

// inFlight calls f with every op that was submitted and not given back.
func (m *Machine) inFlight(f func(*Op)) {
	note := func(op *Op) {
		f(op)
		each(op.core.twins, f)
	}
	for seq := m.window.first; seq <= m.window.last(); seq++ {
		if op := m.window.at(seq); op != nil {
			note(op)
		}
	}
	for op := m.active.head; op != nil; op = op.core.next {
		if op.Kind == Read && op.core.copy == nil {
			note(op)
		}
	}
	each(m.parked, note)
	for _, c := range m.copies {
		each(c.held, note)
	}
}

func each(ops []*Op, f func(*Op)) {
	for _, op := range ops {
		f(op)
	}
}

func (m *Machine) do(kind ActionKind, op *Op) {
	m.actions = append(m.actions, Action{Kind: kind, Op: op})
}

func (m *Machine) tellReplica(kind ActionKind, id ReplicaID) {
	a := Action{Kind: kind, Replica: id, Conf: m.current, Learner: m.members[id].standing == learner}
	if kind == ActOrigins {
		snapshot := m.origins.Clone()
		a.Origins = &snapshot
	}
	m.actions = append(m.actions, a)
}
