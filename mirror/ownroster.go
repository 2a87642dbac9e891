package mirror

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// ownRoster is the configuration service of a volume whose members its flags name:
// it keeps the configuration in a record of the primary's own store. That is safe
// for one primary only, because who else could become one does not ask here.
//
// Member 0 is this copy; the others are numbered as they are given. What is
// recorded of one is found again by its address, and counts only while the same
// store answers there.
type ownRoster struct {
	store Store
	log   *slog.Logger

	acceptDataLoss bool
	first          bool // the volume is new
	followed       bool // this copy has only ever been a replica

	mu     sync.Mutex
	record rosterRecord
	seen   []wire.ID // the store that answered last, by member
}

// rosterRecord is the record "configuration", as JSON.
type rosterRecord struct {
	Epoch   uint64         `json:"epoch"`
	Members []rosterMember `json:"members"`
}

type rosterMember struct {
	Addr    string `json:"addr"`    // empty: this copy
	Replica string `json:"replica"` // its store's ID in hexadecimal; empty: not known
	InSync  bool   `json:"in_sync"`
}

const rosterName = "configuration"

// openRoster reads what is recorded and fits it to the replicas that are given.
func openRoster(conf *Config) (*ownRoster, error) {
	r := &ownRoster{store: conf.Store, log: conf.Log, acceptDataLoss: conf.AcceptDataLoss, seen: make([]wire.ID, 1+len(conf.Replicas))}
	var old rosterRecord
	switch data, err := conf.Store.ReadRecord(rosterName); {
	case errors.Is(err, fs.ErrNotExist):
		r.first = conf.Store.Meta().Volume == wire.ID{}
		r.followed = !r.first
	case err != nil:
		return nil, fmt.Errorf("%w; to compare every replica in full instead, remove that file", err)
	default:
		if err := json.Unmarshal(data, &old); err != nil {
			return nil, fmt.Errorf("record %q: %w; to compare every replica in full instead, remove it", rosterName, err)
		}
	}
	meta := conf.Store.Meta()
	stale := old.Epoch < meta.Epoch // this store followed another primary since: what was in sync then need not be now
	r.record.Epoch = max(old.Epoch, meta.Epoch)
	r.record.Members = []rosterMember{{Replica: hex.EncodeToString(meta.Replica[:]), InSync: true}}
	for _, addr := range conf.Replicas {
		member := rosterMember{Addr: addr}
		if i := slices.IndexFunc(old.Members, func(m rosterMember) bool { return m.Addr == addr }); i >= 0 {
			member = old.Members[i]
			member.InSync = member.InSync && !stale
		}
		r.record.Members = append(r.record.Members, member)
	}
	return r, r.forget(old.Members, stale, conf)
}

// led says whether a store was its volume's primary last, as far as it knows: under
// the epoch in its metadata; and which stores were in sync then.
func led(s Store) (inSync []wire.ID, was bool) {
	data, err := s.ReadRecord(rosterName)
	var record rosterRecord
	if err != nil || json.Unmarshal(data, &record) != nil || record.Epoch < s.Meta().Epoch {
		return nil, false
	}
	for _, m := range record.Members {
		if id, ok := m.id(); ok && m.InSync {
			inSync = append(inSync, id)
		}
	}
	return inSync, true
}

// forget removes the out-of-sync bitmaps of members that are not given any more,
// of those in sync, and of all if the record is stale.
func (r *ownRoster) forget(old []rosterMember, stale bool, given *Config) error {
	for _, m := range old {
		i := slices.IndexFunc(r.record.Members, func(n rosterMember) bool { return m.Addr == n.Addr })
		switch {
		case i >= 0:
		case m.InSync && r.store.Meta().Lossy && !given.AcceptDataLoss:
			return fmt.Errorf("replica %s was in sync and is not named: it may have writes that this copy lost with its machine's power; name it, or serve its copy, or accept that they are lost (--accept-data-loss)", m.Addr)
		case m.InSync && !stale && !slices.Contains(given.Forget, m.Addr):
			return fmt.Errorf("replica %s is in sync and is not named: name it, or give it up (--forget-replica %s)", m.Addr, m.Addr)
		default:
			r.log.Warn("a replica is not named any more: the volume goes on without it", "replica", m.Addr, "was_in_sync", m.InSync)
		}
		if id, ok := m.id(); ok && (i < 0 || m.InSync || stale) {
			if err := r.store.RemoveOutOfSync(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *rosterMember) id() (id wire.ID, ok bool) {
	raw, err := hex.DecodeString(m.Replica)
	if err != nil || len(raw) != len(id) {
		return id, false
	}
	return wire.ID(raw), true
}

// all is every member; what is given at the start never changes.
func (r *ownRoster) all() (s Set) {
	for i := range r.record.Members {
		s = s.With(ReplicaID(i))
	}
	return s
}

func (r *ownRoster) inSync() (s Set) {
	for i, m := range r.record.Members {
		if m.InSync {
			s = s.With(ReplicaID(i))
		}
	}
	return s
}

// promotion begins a new epoch with this copy as the truth.
func (r *ownRoster) promotion(ctx context.Context) (*Promotion, Configuration, error) {
	own, err := r.own(r.acceptDataLoss)
	if err != nil {
		return nil, Configuration{}, err
	}
	next := own.Before
	next.Epoch++
	conf, err := r.propose(ctx, next)
	if err == nil && r.followed {
		r.log.Warn("this copy was a replica until now: if its volume was run with --on-replica-loss continue and left it behind, it lacks what was written since")
	}
	return own, conf, err
}

// own is what this copy brings along as the primary. A store without a volume
// becomes one: it is the truth, whatever it holds.
func (r *ownRoster) own(acceptDataLoss bool) (*Promotion, error) {
	meta := r.store.Meta()
	first := meta.Volume == wire.ID{}
	if !meta.Complete && !meta.Lossy && !first && !acceptDataLoss {
		return nil, fmt.Errorf("this store is not a full copy (%s): serve a copy that is, or accept that what it lacks is lost (--accept-data-loss)", meta.Why)
	}
	trusted := meta.Complete || meta.Lossy || first
	if first || acceptDataLoss && !meta.Complete {
		err := r.store.Update(func(m *store.Meta) {
			if first {
				rand.Read(m.Volume[:])
			}
			m.Complete, m.Lossy, m.Why = true, false, ""
		})
		if err != nil {
			return nil, err
		}
		if !first {
			r.log.Warn("data loss is accepted: what this copy lacks is gone, and replicas are made equal to it", "why", meta.Why)
		}
		meta = r.store.Meta()
	}
	if !trusted { // what the others lack beside such a copy is not known
		if err := r.forgetOthers(); err != nil {
			return nil, err
		}
	}
	return &Promotion{
		State:     ReplicaState{Complete: meta.Complete, Lossy: meta.Lossy, Known: true, Intents: r.store.Intents()},
		Before:    Configuration{Epoch: r.record.Epoch, InSync: r.inSync()},
		OutOfSync: r.outOfSync(),
		Origins:   Origins{Whole: true},
	}, nil
}

// forgetOthers makes every other member one of which nothing is known.
func (r *ownRoster) forgetOthers() error {
	for i := range r.record.Members[1:] {
		m := &r.record.Members[i+1]
		if id, ok := m.id(); ok {
			if err := r.store.RemoveOutOfSync(id); err != nil {
				return err
			}
		}
		m.InSync, m.Replica = false, ""
	}
	return nil
}

// outOfSync is what was kept for the members that are not in sync.
func (r *ownRoster) outOfSync() map[ReplicaID]*dirty.Map {
	kept := map[ReplicaID]*dirty.Map{}
	for i, m := range r.record.Members {
		id, ok := m.id()
		if !ok || m.InSync {
			continue
		}
		missed, err := r.store.OutOfSync(id)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("what a replica lacks is not known exactly: more of it is copied than needed", "replica", m.Addr, "err", err)
		}
		if missed != nil {
			kept[ReplicaID(i)] = missed
		}
	}
	return kept
}

// wantsAll says that a new volume is to begin with every member, lest a wrong
// address makes a mirror of one.
func (r *ownRoster) wantsAll() bool { return r.first }

// propose records c if it follows what is recorded, and returns what is in force
// then. After an error either may be.
func (r *ownRoster) propose(_ context.Context, c Configuration) (Configuration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Epoch != r.record.Epoch+1 {
		return Configuration{Epoch: r.record.Epoch, InSync: r.inSync()}, nil
	}
	next := rosterRecord{Epoch: c.Epoch, Members: slices.Clone(r.record.Members)}
	for i := range next.Members {
		m, was := &next.Members[i], r.record.Members[i].InSync
		if m.InSync = c.InSync.Has(ReplicaID(i)); m.InSync && was {
			continue
		}
		before, _ := m.id()
		if r.seen[i] != (wire.ID{}) {
			m.Replica = hex.EncodeToString(r.seen[i][:])
		}
		if id, ok := m.id(); ok && was {
			if err := removed(r.store, id, id == before); err != nil {
				return Configuration{}, err
			}
		}
	}
	if err := r.write(next); err != nil {
		return Configuration{}, err
	}
	for i, m := range next.Members {
		if id, ok := m.id(); ok && i > 0 && m.InSync {
			if err := r.store.RemoveOutOfSync(id); err != nil {
				return Configuration{}, err
			}
		}
	}
	return c, nil
}

func (r *ownRoster) write(next rosterRecord) error {
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := r.store.WriteRecord(rosterName, data); err != nil {
		return err
	}
	r.record = next
	return r.store.Update(func(m *store.Meta) { m.Epoch = max(m.Epoch, next.Epoch) })
}

// same says whether the store that answers for a member is the one on record.
func (r *ownRoster) same(i ReplicaID, id wire.ID) bool {
	known, ok := r.replica(i)
	return ok && known == id
}

// identify notes which store answers for a member. The machine must know already
// whether it is the same: once on record, it is taken to have what the one before had
// but for what the machine says that it lacks.
func (r *ownRoster) identify(i ReplicaID, id wire.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[i] = id
	m := r.record.Members[i]
	known, ok := m.id()
	if ok && known == id || m.InSync { // until it is taken out, the record must name the store that was in sync
		return nil
	}
	for _, of := range []wire.ID{known, id} {
		if err := r.store.RemoveOutOfSync(of); err != nil {
			return err
		}
	}
	next := rosterRecord{Epoch: r.record.Epoch, Members: slices.Clone(r.record.Members)}
	next.Members[i].Replica = hex.EncodeToString(id[:])
	return r.write(next)
}

// replica is the ID of the store that stands for a member, if one is on record.
func (r *ownRoster) replica(i ReplicaID) (wire.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record.Members[i].id()
}
