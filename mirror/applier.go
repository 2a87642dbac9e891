package mirror

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"lockstep/mirror/dirty"
	"lockstep/mirror/internal/sabotage"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// Store is what a volume needs of one copy on disk; package mirror/store has it.
// All methods may be called concurrently.
type Store interface {
	ReadAt(p []byte, off int64) error
	ReadCached(p []byte, off int64) error // an error means only: use ReadAt
	WriteAt(p []byte, off int64) error
	Zero(off, length int64, allocate bool) error
	Ready(off, length int64) bool // WriteAt there waits for no intent
	Prepare(off, length int64) error
	Sync() error
	Data(off int64) (start, end int64, err error)
	Size() int64
	New() bool

	Meta() store.Meta
	Update(func(*store.Meta)) error
	ReadRecord(name string) ([]byte, error)
	WriteRecord(name string, data []byte) error

	Intents() *dirty.Map
	Generation() uint64
	Retire(before uint64) error
	OutOfSync(replica [16]byte) (*dirty.Map, error)
	SaveOutOfSync(replica [16]byte, m *dirty.Map) error
	RemoveOutOfSync(replica [16]byte) error
}

// Applier does what the frames of one connection ask for: it joins a [Follower]
// to its store. Handle is for one goroutine, which hands over frames in their
// order. Sync may run beside it, and so may the answer to a durable ping: it
// covers what came before it, and waits for the disk.
type Applier struct {
	store Store
	send  func(h wire.Header, payload []byte) error
	now   func() time.Duration

	mu       sync.Locker // guards follower, which outlives connections, and wanted
	follower *Follower
	wanted   uint64 // durable must reach this

	persisting sync.Mutex // what the copy knows of itself is changed and kept in one go

	connection uint64 // the follower's, of this one
	changed    bool   // there is something to acknowledge
	mark       uint64 // the primary's number of the generation that began last
	begun      uint64 // the store's number of it
}

// NewApplier returns what handles the frames of a connection that f admitted. mu
// guards f. send sends one frame to the primary; Handle and Sync call it. now is a
// clock that never goes back.
func NewApplier(f *Follower, mu sync.Locker, s Store, now func() time.Duration, send func(h wire.Header, payload []byte) error) *Applier {
	return &Applier{store: s, send: send, now: now, mu: mu, follower: f}
}

// IdentityOf is what a store knows of itself.
func IdentityOf(m store.Meta) Identity {
	return Identity{Volume: m.Volume, Replica: m.Replica, Epoch: m.Epoch, Complete: m.Complete, Lossy: m.Lossy}
}

// Persist makes id durable in s.
func Persist(s Store, id Identity, why string) error {
	if m := s.Meta(); IdentityOf(m) == id {
		return nil
	}
	return s.Update(func(m *store.Meta) {
		m.Volume, m.Epoch, m.Complete, m.Lossy, m.Why = id.Volume, id.Epoch, id.Complete, id.Lossy, ""
		if !id.Complete {
			m.Why = why
		}
	})
}

const whyLearner = "it is being brought up to date, or was when that broke off"

// Handle does one frame. An error ends the connection, and nothing more of it may
// be handled. The payload is the caller's again when it returns.
func (a *Applier) Handle(h *wire.Header, payload []byte) error {
	repeated, err := a.check(h, payload)
	if err != nil {
		return err
	}
	if repeated {
		return a.applied(h, nil)
	}
	off, length := int64(h.Offset), int64(h.Length)
	switch h.Kind {
	case wire.KindWrite:
		return a.applied(h, a.store.WriteAt(payload, off))
	case wire.KindZero:
		return a.applied(h, a.store.Zero(off, length, h.Flags&wire.NoHole != 0))
	case wire.KindFlush:
		return a.applied(h, nil)
	case wire.KindCopy:
		if h.Flags&wire.Zero != 0 {
			return a.store.Zero(off, length, false)
		}
		return a.store.WriteAt(payload, off)
	}
	return a.handleOther(h, payload)
}

// check says whether a frame may be done now, and notes it if it may; and whether
// it is one that was done before.
func (a *Applier) check(h *wire.Header, payload []byte) (repeated bool, err error) {
	if err := h.Check(payload); err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.replaced(); err != nil {
		return false, err
	}
	if err := a.follower.Accept(h); err != nil {
		return false, err
	}
	if a.follower.Repeated(h) {
		return true, nil
	}
	a.note(h)
	return false, nil
}

// replaced says that a newer connection took this one's place. The lock is held.
func (a *Applier) replaced() error {
	if a.connection != a.follower.connection {
		return errReplaced
	}
	return nil
}

// note tells the follower what may be on its disk from now on.
func (a *Applier) note(h *wire.Header) {
	switch h.Kind {
	case wire.KindWrite, wire.KindZero:
		a.follower.Writing(h)
	case wire.KindCopy:
		a.follower.Copying(h)
	}
}

func (a *Applier) applied(h *wire.Header, err error) error {
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.replaced(); err != nil {
		return err
	}
	if a.follower.Applied(h) {
		a.changed = true
		if h.Flags&wire.Durable != 0 {
			a.wanted = h.Seq
		}
	}
	return nil
}

func (a *Applier) handleOther(h *wire.Header, payload []byte) error {
	switch h.Kind {
	case wire.KindSum:
		return a.digest(h)
	case wire.KindPing:
		return a.pong(h, a.configurations())
	case wire.KindConfigure:
		return a.identify(func(f *Follower) error { return f.Configure(h) })
	case wire.KindOrigin, wire.KindOrigins:
		a.mu.Lock()
		defer a.mu.Unlock()
		if h.Kind == wire.KindOrigin {
			a.follower.From(payload)
		} else {
			a.follower.Remember(h, payload)
		}
		return nil
	case wire.KindMark:
		a.mark, a.begun = h.Seq, a.store.Generation()
		return nil
	case wire.KindRetire:
		if h.Seq != a.mark {
			return nil // of a generation that began on an earlier connection
		}
		return a.store.Retire(a.begun)
	}
	return fmt.Errorf("%w: a primary does not send %v frames", wire.ErrCorrupt, h.Kind)
}

// identify changes what the copy knows of itself, durably.
func (a *Applier) identify(change func(*Follower) error) error {
	a.persisting.Lock()
	defer a.persisting.Unlock()
	a.mu.Lock()
	err := a.replaced()
	if err == nil {
		err = change(a.follower)
	}
	id := a.follower.Identity()
	a.mu.Unlock()
	return errors.Join(err, Persist(a.store, id, whyLearner))
}

// Acknowledge sends an acknowledgement if there is something new.
func (a *Applier) Acknowledge() error {
	if !a.changed {
		return nil
	}
	a.changed = false
	return a.send(a.acknowledgement(), nil)
}

func (a *Applier) acknowledgement() wire.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := wire.Header{Kind: wire.KindAck}
	h.Seq, h.Watermark = a.follower.Acknowledgement()
	return h
}

// Wanted is up to which seq a sync is asked for that was not done yet; 0 if none.
func (a *Applier) Wanted() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, durable := a.follower.Acknowledgement(); a.wanted > durable {
		return a.wanted
	}
	return 0
}

// Sync makes durable what was applied when it begins, and acknowledges it.
func (a *Applier) Sync() error {
	a.mu.Lock()
	upTo, _ := a.follower.Acknowledgement()
	a.mu.Unlock()
	if err := a.store.Sync(); err != nil {
		return err
	}
	a.mu.Lock()
	err := a.replaced()
	if err == nil {
		a.follower.Durable(upTo)
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return a.send(a.acknowledgement(), nil)
}

func (a *Applier) configurations() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.follower.configurations
}

// pong answers a ping: at once, or when all before it is on stable storage, or
// also when this copy is marked as a full one: under the configuration in which
// that was asked for, whose number is under.
func (a *Applier) pong(h *wire.Header, under uint64) error {
	if h.Flags&wire.Durable != 0 && !sabotage.On("last flush") {
		if err := a.store.Sync(); err != nil {
			return err
		}
	}
	if h.Flags&wire.Complete != 0 {
		if err := a.identify(func(f *Follower) error { return f.Finish(under) }); err != nil {
			return err
		}
	}
	a.mu.Lock()
	err := a.follower.Promise(a.now())
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return a.send(wire.Header{Kind: wire.KindPong, Seq: h.Seq}, nil)
}

// digest answers what a range holds: its digests, or that it is all zeroes.
func (a *Applier) digest(h *wire.Header) error {
	out := wire.Header{Kind: wire.KindDigest, Seq: h.Seq, Offset: h.Offset, Length: h.Length}
	r := Range{int64(h.Offset), int64(h.Length)}
	if h.Flags&wire.Zero != 0 {
		n, err := zeroes(a.store, r)
		if err != nil {
			return err
		}
		if n > 0 {
			out.Flags, out.Length = wire.Zero, uint32(n)
		}
		return a.send(out, nil)
	}
	if r.Len > maxSum {
		return fmt.Errorf("%w: sum of %d bytes, at most %d are allowed", wire.ErrCorrupt, r.Len, int64(maxSum))
	}
	digests, err := digestsOf(a.store, r)
	if err != nil {
		return err
	}
	return a.send(out, digests)
}
