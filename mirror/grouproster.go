package mirror

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"lockstep/mirror/dirty"
	"lockstep/mirror/internal/sabotage"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// groupRoster is the roster of a volume whose configuration a raft group keeps. What
// is seen of a member's store goes on record with the next proposal.
type groupRoster struct {
	reign *Reign
	conf  *Config
	store Store
	log   *slog.Logger

	mu     sync.Mutex
	record Record               // in force, as far as known
	seen   [MaxReplicas]wire.ID // the store that answered last, by member
}

func newGroupRoster(conf *Config) *groupRoster {
	return &groupRoster{reign: conf.Reign, conf: conf, store: conf.Store, log: conf.Log, record: conf.Reign.Record}
}

func (r *groupRoster) all() (s Set) {
	for i, addr := range r.reign.Addrs {
		if id := ReplicaID(i); addr != "" || id == r.reign.Self {
			s = s.With(id)
		}
	}
	return s
}

func (r *groupRoster) wantsAll() bool { return false }

func (r *groupRoster) promotion(context.Context) (*Promotion, Configuration, error) {
	if err := r.conf.adopt(r.record); err != nil {
		return nil, Configuration{}, err
	}
	own := &Promotion{State: r.reign.State, Before: r.reign.Before.Configuration, Origins: r.reign.Origins}
	if own.Before.Epoch == 0 {
		own.Origins.Whole = true // nothing was ever written
	}
	var err error
	own.OutOfSync, err = r.outOfSync()
	return own, r.record.Configuration, err
}

// outOfSync is what this node wrote down of the members that are not in sync, if it was
// the primary before.
func (r *groupRoster) outOfSync() (map[ReplicaID]*dirty.Map, error) {
	kept := map[ReplicaID]*dirty.Map{}
	for i, id := range r.record.Stores {
		member := ReplicaID(i)
		if member == r.reign.Self || id == (wire.ID{}) || r.record.InSync.Has(member) {
			continue
		}
		if !r.reign.Led && !sabotage.On("kept") {
			if err := r.store.RemoveOutOfSync(id); err != nil {
				return nil, err
			}
			continue
		}
		missed, err := r.store.OutOfSync(id)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("what a replica lacks is not known exactly: more of it is copied than needed", "replica", r.reign.Addrs[i], "err", err)
		}
		if missed != nil {
			kept[member] = missed
		}
	}
	return kept, nil
}

func (r *groupRoster) propose(ctx context.Context, c Configuration) (Configuration, error) {
	next, err := r.next(c)
	if err != nil {
		return Configuration{}, err
	}
	in, err := r.reign.Service.Propose(ctx, next)
	if err != nil {
		return Configuration{}, err
	}
	if err := r.conf.adopt(in); err != nil {
		return Configuration{}, err
	}
	r.inForce(in)
	return in.Configuration, nil
}

// inForce takes in a record that may be newer.
func (r *groupRoster) inForce(in Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.Epoch <= r.record.Epoch {
		return
	}
	in.Gone |= r.record.Gone
	r.record = in
	for i, id := range r.seen { // it goes on record with the next proposal
		if in.Gone.Has(ReplicaID(i)) {
			r.seen[i] = wire.ID{}
		} else if id != (wire.ID{}) && !in.InSync.Has(ReplicaID(i)) {
			r.record.Stores[i] = id
		}
	}
}

// next is the record to propose for c: who is not in sync on both sides of it goes on
// record with the store that was seen last.
func (r *groupRoster) next(c Configuration) (Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := Record{Configuration: c, By: r.reign.Self, Stores: r.record.Stores}
	next.Stores[r.reign.Self] = r.store.Meta().Replica
	for i := range next.Stores {
		id := ReplicaID(i)
		was := r.record.InSync.Has(id)
		if id == r.reign.Self || was && c.InSync.Has(id) {
			continue
		}
		before := next.Stores[i]
		if r.seen[i] != (wire.ID{}) {
			next.Stores[i] = r.seen[i]
		}
		if was && next.Stores[i] != (wire.ID{}) {
			if err := removed(r.store, next.Stores[i], next.Stores[i] == before); err != nil {
				return Record{}, err
			}
		}
	}
	return next, nil
}

func (r *groupRoster) same(i ReplicaID, id wire.ID) bool {
	known, ok := r.replica(i)
	return ok && known == id
}

// identify changes the record only while the member is not in sync: until it is taken
// out, the store must be on record that was in sync.
func (r *groupRoster) identify(i ReplicaID, id wire.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.record.Gone.Has(i) {
		return nil
	}
	r.seen[i] = id
	if r.record.Stores[i] == id || r.record.InSync.Has(i) {
		return nil
	}
	for _, of := range []wire.ID{r.record.Stores[i], id} {
		if err := r.store.RemoveOutOfSync(of); err != nil {
			return err
		}
	}
	r.record.Stores[i] = id
	return nil
}

func (r *groupRoster) replica(i ReplicaID) (wire.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record.Stores[i], r.record.Stores[i] != wire.ID{}
}

// removed keeps what a member lacks that was in sync until now: writes that are
// not complete, and those to come. Until the bitmap is saved again this copy's
// write-intent bitmap has all of them. Another store than the one that was in sync
// has no bitmap: it is compared in full.
func removed(s Store, id wire.ID, same bool) error {
	if !same {
		return s.RemoveOutOfSync(id)
	}
	return s.SaveOutOfSync(id, dirty.New(s.Size(), blockSize))
}

// adopt keeps what a record means for this copy, before anything is done under it: its
// epoch, and that bitmaps of members in sync say nothing any more.
func (c *Config) adopt(r Record) error {
	if r.Primary != c.self() {
		return nil // it is this volume's end
	}
	for i, id := range r.Stores {
		if member := ReplicaID(i); member != c.self() && r.InSync.Has(member) && id != (wire.ID{}) {
			if err := c.Store.RemoveOutOfSync(id); err != nil {
				return err
			}
		}
	}
	return c.Store.Update(func(m *store.Meta) { m.Epoch = max(m.Epoch, r.Epoch) })
}

// Forget removes what this node wrote down as an earlier primary: it says nothing about
// what another one, that of r, wrote since. It comes before this node proposes itself
// in that one's place.
func Forget(s Store, r Record) error {
	for _, id := range r.Stores {
		if id == (wire.ID{}) {
			continue
		}
		if err := s.RemoveOutOfSync(id); err != nil {
			return err
		}
	}
	return nil
}
