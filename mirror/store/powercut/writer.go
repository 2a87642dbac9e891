package powercut

import (
	"fmt"

	"lockstep/mirror/store"
)

// Target is what a Writer writes to.
type Target interface {
	WriteAt(p []byte, off int64) error
	Zero(off, length int64) error
	Sync() error
}

// Durable is a Target that can promise a single write: with FUA.
type Durable interface {
	// WriteDurably returns when p is on stable storage.
	WriteDurably(p []byte, off int64) error
}

// Writer carries out a Plan.
type Writer struct {
	Plan Plan
	To   Target
	// Mark puts a promise on record, in all the logs there are.
	Mark func(text string) error
	// SyncEvery is the most operations between two syncs; there may be fewer.
	SyncEvery uint64
}

// Run carries out the operations from first to last, and syncs after the last.
func (w *Writer) Run(first, last uint64) error {
	for n := first; n <= last; n++ {
		o := w.Plan.Op(n)
		if err := w.write(o); err != nil {
			return fmt.Errorf("operation %d: %w", n, err)
		}
		if n == last || n%w.SyncEvery == 0 || o.Count%7 == 0 {
			if err := w.To.Sync(); err != nil {
				return fmt.Errorf("sync after operation %d: %w", n, err)
			}
			if err := w.promise(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// promise puts on record that the operations up to n are promised. Only then are their
// intents retired: whoever looks at the log before the mark expects them.
func (w *Writer) promise(n uint64) error {
	if err := w.Mark(fmt.Sprintf("synced-%d", n)); err != nil {
		return err
	}
	if t, ok := w.To.(interface{ Promised() error }); ok {
		return t.Promised()
	}
	return nil
}

func (w *Writer) write(o Op) error {
	if o.Zero {
		return w.To.Zero(o.Off(), o.Len())
	}
	durable, ok := w.To.(Durable)
	if !ok || !o.FUA {
		return w.To.WriteAt(w.Plan.Bytes(o), o.Off())
	}
	if err := durable.WriteDurably(w.Plan.Bytes(o), o.Off()); err != nil {
		return err
	}
	return w.Mark(fmt.Sprintf("fua-%d", o.N))
}

// storeTarget is a store whose intents are retired when what they were for is promised,
// as those of a volume without another replica.
type storeTarget struct {
	*store.Store
	before uint64 // the generation that the last sync began
}

// ToStore writes to a store that is nobody else's.
func ToStore(s *store.Store) Target { return &storeTarget{Store: s} }

func (t *storeTarget) Zero(off, length int64) error {
	return t.Store.Zero(off, length, off/SectorSize%2 == 0)
}

func (t *storeTarget) Sync() error {
	t.before = t.Generation()
	return t.Store.Sync()
}

// Promised retires what the last sync made durable.
func (t *storeTarget) Promised() error { return t.Retire(t.before) }
