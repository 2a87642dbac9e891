package mirror

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"lockstep/mirror/dirty"
	"lockstep/mirror/internal/sabotage"
	"lockstep/mirror/wire"
)

// Identity is what a copy knows of itself and keeps on disk.
type Identity struct {
	Volume   wire.ID // zero: it never had a primary
	Replica  wire.ID
	Epoch    uint64 // the highest seen
	Complete bool   // a full copy
	Lossy    bool   // not complete, because its machine lost power when it was
}

// Follower is a replica's side of the protocol: what it may accept, and what it
// must remember. Like [Machine] it is pure, and not safe for concurrent use; its
// driver applies what was accepted, in order.
//
//	               Admit               Admit, higher epoch
//	no primary ------------> following ------------> following the new one
//
// Fence: this node wants to be primary itself, and follows nobody below that epoch.
//
// It serves one connection at a time. When its node became primary it is over: what
// the node wrote as one it knows nothing of, and a new Follower must take its place.
type Follower struct {
	id     Identity
	size   int64
	blank  bool // its store holds nothing but zeroes
	floor  uint64
	reign  wire.ID   // the primary's run that wrote last
	led    []wire.ID // this copy was the primary last, with these in sync, itself among them; nil: it was not
	reach  uint64    // highest seq of it that was applied, over all connections
	recent recent
	heard  time.Duration

	origins    Origins
	snapshot   bool   // a snapshot of origins is under way
	foreign    bool   // origins are of an earlier primary, whose ops a copy may undo
	connection uint64 // counts those that were admitted

	configurations uint64 // counts those that were told

	// Of the connection.
	epoch     uint64
	part      uint64 // the write that waits for its next part, or 0
	origin    Origin // of the next op, if Number is not 0
	applied   uint64
	durable   uint64
	watermark uint64
}

// Errors of a follower.
var (
	// ErrFenced: the sender's epoch is over.
	ErrFenced = errors.New("that epoch is over; the volume has a newer primary")
	// ErrWrongVolume: the copy belongs to another volume.
	ErrWrongVolume = errors.New("this replica holds another volume")
)

// NewFollower returns the follower of a copy of size bytes. blank says that the
// copy holds nothing but zeroes. Its promise counts from now: what an earlier
// run promised is not known.
func NewFollower(id Identity, size int64, blank bool, now time.Duration) *Follower {
	f := &Follower{id: id, size: size, blank: blank, floor: id.Epoch, heard: now}
	f.recent.lost = true
	return f
}

// Led notes that this copy was its volume's primary when it was last in use, and
// which stores were in sync with it, its own among them: no other may lead it from
// then on, lest what it acknowledged is undone, nor one under the same epoch. It is no
// full copy to the next primary, which does not know what it wrote.
func (f *Follower) Led(inSync []wire.ID) {
	f.led = inSync
	f.id.Complete, f.id.Lossy = false, false
	f.Fence(f.id.Epoch + 1)
}

// Identity is the copy's as it should be on disk.
func (f *Follower) Identity() Identity { return f.id }

// Admit begins a connection with the primary that says hello under epoch. When it
// returns nil, Identity must be made durable before the welcome is sent.
func (f *Follower) Admit(hello *wire.Hello, epoch uint64, now time.Duration) (wire.Welcome, error) {
	if err := f.Admissible(hello, epoch); err != nil {
		return wire.Welcome{}, err
	}
	known := f.id.Volume == hello.ID
	if !known {
		f.id.Volume, f.id.Complete, f.id.Lossy = hello.ID, false, false
	}
	f.id.Epoch = max(f.id.Epoch, epoch)
	f.floor = max(f.floor, epoch)
	if f.reign != hello.Session {
		f.recent.keep()
		f.reign, f.reach = hello.Session, 0
		f.foreign = true
	}
	f.led = nil
	f.connection++
	f.snapshot = false
	f.epoch, f.part, f.origin = epoch, 0, Origin{}
	f.applied, f.durable, f.watermark = 0, 0, 0
	f.heard = now
	_, remembers := f.recent.ranges()
	return wire.Welcome{Size: uint64(f.size), Replica: f.id.Replica, Epoch: f.id.Epoch,
		Complete: f.id.Complete && known, Lossy: f.id.Lossy && known, Known: known, Remembers: remembers}, nil
}

// Admissible says why a primary may not be admitted, if so; it changes nothing.
func (f *Follower) Admissible(hello *wire.Hello, epoch uint64) error {
	switch {
	case f.id.Volume != (wire.ID{}) && f.id.Volume != hello.ID:
		return fmt.Errorf("%w (%v, the primary's is %v%s): is the address right, and the primary's --store? If this copy is the one you want, serve it, or a copy of it with its .lockstep directory; only if nothing in it is needed, remove both", ErrWrongVolume, f.id.Volume, hello.ID, newIf(hello.Fresh))
	case f.led != nil && !slices.Contains(f.led, hello.Replica):
		return errors.New("this copy was served as the volume's primary itself, and the copy that is the primary now was not in sync with it: what was written here would be lost. If it may be, start this replica with --overwrite; if not, serve this one")
	case epoch < f.floor && !sabotage.On("fence"):
		return fmt.Errorf("%w (epoch %d, this replica has seen %d); if that one is gone and what this copy has beyond the primary's may be lost, remove this replica's store: it is copied anew", ErrFenced, epoch, f.floor)
	case hello.Size != uint64(f.size):
		return fmt.Errorf("the volume has %d bytes, this replica's store %d; start both with the same --size (a node of a cluster makes its copy grow by itself)", hello.Size, f.size)
	case f.id.Volume == (wire.ID{}) && !f.blank:
		return errors.New("it holds data that belongs to no volume: nothing was overwritten. If that data is the right one, serve it as the primary; if it may be overwritten, start the replica with --overwrite, or remove its file")
	}
	return nil
}

func newIf(fresh bool) string {
	if fresh {
		return ", which is new"
	}
	return ""
}

// Written are the ranges that may differ from other in-sync copies; false if they
// are not known, and the write-intent bitmap has to stand for them.
func (f *Follower) Written() ([]Range, bool) { return f.recent.ranges() }

// State is what the copy would tell a primary, or bring along as one itself.
func (f *Follower) State(intents *dirty.Map) ReplicaState {
	s := ReplicaState{Complete: f.id.Complete, Lossy: f.id.Lossy, Known: true}
	if written, ok := f.recent.ranges(); ok {
		s.Written = written
	} else {
		s.Intents = intents
		if sabotage.On("intents") {
			s.Intents = dirty.New(f.size, intents.Block())
		}
	}
	return s
}

// Origins is what is remembered of retried ops.
func (f *Follower) Origins() Origins { return f.origins.Clone() }

// Accept says whether a frame of the connection may be done now. Its error ends
// the connection.
func (f *Follower) Accept(h *wire.Header) error {
	switch {
	case f.floor > f.epoch && h.Epoch < f.floor && h.Kind != wire.KindConfigure && !sabotage.On("fence"):
		return fmt.Errorf("%w (epoch %d, this replica has seen %d)", ErrFenced, h.Epoch, f.floor)
	case h.Epoch > f.epoch && h.Kind != wire.KindConfigure:
		return fmt.Errorf("%w: %v frame of epoch %d in a session of epoch %d", wire.ErrCorrupt, h.Kind, h.Epoch, f.epoch)
	case h.Offset+uint64(h.Length) > uint64(f.size):
		return fmt.Errorf("%w: %v frame at %d+%d is outside the volume of %d bytes", wire.ErrCorrupt, h.Kind, h.Offset, h.Length, f.size)
	case f.part != 0 && h.Kind != wire.KindPing && (h.Kind != wire.KindWrite || h.Seq != f.part):
		return fmt.Errorf("%w: %v frame seq %d amid the parts of seq %d", wire.ErrCorrupt, h.Kind, h.Seq, f.part)
	case h.Kind == wire.KindCopy && f.id.Complete && h.Flags&wire.Learner != 0:
		return fmt.Errorf("%w: a copy for a learner, and this replica is a full copy", wire.ErrCorrupt)
	case h.Kind != wire.KindWrite && h.Kind != wire.KindZero && h.Kind != wire.KindFlush:
		return nil
	case h.Seq <= f.applied:
		return fmt.Errorf("%w: %v frame seq %d after %d", wire.ErrCorrupt, h.Kind, h.Seq, f.applied)
	}
	return nil
}

// Repeated says that a write or zero was applied already, on an earlier connection
// of this primary. Once more it would undo, for a while, the later ones that were.
func (f *Follower) Repeated(h *wire.Header) bool {
	return (h.Kind == wire.KindWrite || h.Kind == wire.KindZero) && h.Seq <= f.reach
}

// Writing notes a write or zero that is about to be applied: from here on it may
// be there, in part.
func (f *Follower) Writing(h *wire.Header) {
	f.recent.add(h.Seq, Range{int64(h.Offset), int64(h.Length)})
	f.blank = false
}

// Applied notes that a write, zero or flush was done, with the frame that h is.
// It returns whether the op is whole, so that it is to be acknowledged.
func (f *Follower) Applied(h *wire.Header) bool {
	f.part = 0
	if h.Flags&wire.More != 0 {
		f.part = h.Seq
		return false
	}
	f.applied = h.Seq
	f.reach = max(f.reach, h.Seq)
	if f.origin.Number != 0 {
		f.origins.Add(f.origin)
		f.origin = Origin{}
	}
	if h.Watermark > f.watermark {
		f.watermark = h.Watermark
		f.recent.trim(h.Watermark)
	}
	return true
}

// Copying notes a copy that is about to be applied. It may bring writes that are
// not complete, and is remembered as long as they are.
func (f *Follower) Copying(h *wire.Header) {
	if f.foreign {
		f.origins = Origins{}
	}
	r := Range{int64(h.Offset), int64(h.Length)}
	if h.Seq == 0 {
		f.recent.copied(r)
	} else {
		f.recent.add(h.Seq, r)
	}
	f.blank = false
}

// Durable notes that everything applied up to seq is on stable storage.
func (f *Follower) Durable(seq uint64) { f.durable = max(f.durable, seq) }

// Acknowledgement is what to tell the primary.
func (f *Follower) Acknowledgement() (applied, durable uint64) { return f.applied, f.durable }

// Configure takes in the epoch of h and whether this copy is a learner under it.
// Identity must be made durable before the next frame is done.
func (f *Follower) Configure(h *wire.Header) error {
	if h.Epoch < f.floor && !sabotage.On("fence") {
		return fmt.Errorf("%w (epoch %d, this replica has seen %d)", ErrFenced, h.Epoch, f.floor)
	}
	f.epoch, f.floor = h.Epoch, h.Epoch
	f.configurations++
	f.id.Epoch = max(f.id.Epoch, h.Epoch)
	if h.Flags&wire.Learner != 0 {
		f.id.Complete, f.id.Lossy = false, false
	}
	return nil
}

// Finish notes that the primary made this copy a full one, if it did under the
// configuration of that number. The store must be flushed before, and Identity made
// durable after.
func (f *Follower) Finish(under uint64) error {
	if under != f.configurations {
		return errReplaced
	}
	f.id.Complete, f.id.Lossy = true, false
	f.recent.finish()
	return nil
}

// Remember takes in one frame of the primary's Origins.
func (f *Follower) Remember(h *wire.Header, payload []byte) {
	if !f.snapshot {
		f.origins = Origins{}
	}
	f.snapshot = h.Flags&wire.More != 0
	for range len(payload) / wire.OriginSize {
		var o wire.Origin
		o.Decode(payload)
		payload = payload[wire.OriginSize:]
		f.origins.Add(Origin{Session: o.Session, Number: o.Number, Lowest: o.Lowest, Known: o.Known})
	}
	if !f.snapshot {
		f.foreign = false
		f.origins.Whole = h.Flags&wire.Complete != 0
	}
}

// From notes whose the next op is.
func (f *Follower) From(payload []byte) {
	var o wire.Origin
	o.Decode(payload)
	f.origin = Origin{Session: o.Session, Number: o.Number, Lowest: o.Lowest, Known: o.Known}
}

// Promise extends the promise not to take over: a heartbeat came, and is answered
// unless this returns why not.
func (f *Follower) Promise(now time.Duration) error {
	if f.floor > f.epoch && !sabotage.On("fence") {
		return ErrFenced
	}
	f.heard = max(f.heard, now)
	return nil
}

// Agreed notes that this copy's node was the primary and gave that up in good order:
// every write was complete, and so no other copy in sync differs from this one.
func (f *Follower) Agreed() { f.recent.finish() }

// Fence refuses every primary below epoch from now on: its connection ends with
// its next frame. It comes before this node proposes itself.
func (f *Follower) Fence(epoch uint64) { f.floor = max(f.floor, epoch) }
