package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/store"
)

// Role is what a node is to a volume; the package's page draws how they follow.
type Role string

// The roles of a node.
const (
	Bystander Role = "bystander"
	Following Role = "following"
	Leading   Role = "leading"
	Stopping  Role = "stopping"
)

// Seat is a node's part in one volume. Its methods may be called concurrently; one
// goroutine, which runs run, changes its role.
type Seat struct {
	h    *Host
	name string
	id   control.ID
	log  *slog.Logger

	wake  chan struct{} // capacity 1: there is a newer record
	asked chan errand
	gone  chan struct{} // closed when run has returned

	// Of the goroutine.
	rest    time.Time      // no claim before that: the last promotion came to nothing
	ending  *lead          // what is stopping
	stopped chan struct{}  // closed when that has stopped
	agreed  bool           // it gave up in good order
	origins mirror.Origins // of what was led or followed until now, if that was in good order
	obeyed  uint64         // the epoch in which this copy counts as whole by an operator's word
	listed  bool           // this copy was on record with its volume, by the identity of its store
	said    string         // the last error that was logged

	routes routes

	mu      sync.Mutex
	record  *control.Volume // nil: deleted
	role    Role
	store   *store.Store    // nil for a bystander
	replica *mirror.Replica // following
	lead    *lead           // leading
	changed chan struct{}   // closed and replaced when the role changes
}

// errand is what somebody else wants the seat's goroutine to do.
type errand struct {
	do   func(context.Context) error
	done chan error
}

// tickInterval is how often a replica is asked whether it may claim the volume.
const tickInterval = 20 * time.Millisecond

func newSeat(h *Host, v *control.Volume) *Seat {
	return &Seat{
		h: h, name: v.Name, id: v.ID, log: h.conf.Log.With("volume", v.Name), role: Bystander,
		wake: make(chan struct{}, 1), asked: make(chan errand), gone: make(chan struct{}), changed: make(chan struct{}),
	}
}

// tell hands over the newest record; nil says that the volume was deleted.
func (s *Seat) tell(v *control.Volume) {
	s.mu.Lock()
	same := s.record != nil && v != nil && (s.record.Equal(v) || older(v, s.record)) // this node's state may lag behind what it asked for
	if !same {
		s.record = v
	}
	s.mu.Unlock()
	if !same {
		s.poke()
	}
}

// older says that v was in force before w.
func older(v, w *control.Volume) bool {
	if v.Epoch != w.Epoch {
		return v.Epoch < w.Epoch
	}
	for name, generation := range w.Clients {
		if v.Clients[name] < generation {
			return true
		}
	}
	return v.Incarnation < w.Incarnation
}

// refresh takes in what this node's state says now: somebody may act upon it.
func (s *Seat) refresh() {
	if v := s.h.conf.Group.State().Volumes[s.name]; v != nil && v.ID == s.id {
		s.tell(v)
	}
}

func (s *Seat) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the seat's goroutine.
func (s *Seat) run(ctx context.Context) {
	defer close(s.gone)
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		if s.turn(ctx) {
			s.end()
			return
		}
		var ended <-chan struct{}
		if l := s.leading(); l != nil {
			ended = l.volume.Ended()
		}
		select {
		case <-ctx.Done():
			s.leave(context.WithoutCancel(ctx))
			return
		case <-s.wake:
		case <-ended:
		case <-s.stopped:
			s.ended()
			s.follow()
		case e := <-s.asked:
			s.refresh()
			e.done <- e.do(ctx)
		case <-tick.C:
		}
	}
}

// turn does what the record and the role ask for; it says whether the volume is gone.
func (s *Seat) turn(ctx context.Context) (gone bool) {
	v := s.Record()
	if v == nil {
		return true
	}
	if err := s.play(ctx, v); err != nil && ctx.Err() == nil {
		s.complain(err)
	}
	if v = s.Record(); v == nil {
		return true
	}
	s.routes.begin(v) // before anybody is sent to a volume that forgot what it had
	s.routes.set(s.route(v))
	return false
}

// complain logs an error, unless it was the last thing said: turns come often.
func (s *Seat) complain(err error) {
	if text := err.Error(); text != s.said {
		s.said = text
		s.log.Error("volume", "err", err)
	}
}

func (s *Seat) play(ctx context.Context, v *control.Volume) error {
	slot := slotOf(v, s.h.conf.Name)
	switch role := s.Role(); {
	case role == Stopping:
		s.disown(v, slot)
		return nil
	case role == Leading:
		return s.reign(ctx, v, slot)
	case role == Following && (slot == mirror.NoReplica || s.replaced(v.Replicas[slot])):
		return s.abandon(v)
	case slot == mirror.NoReplica:
		return nil
	case role == Bystander && time.Now().Before(s.rest):
		return nil
	case role == Bystander:
		return s.open(v, slot)
	case s.outgrown(v):
		return s.grow(v)
	}
	if err := s.obey(v, slot); err != nil {
		return err
	}
	return s.claim(ctx, v, slot)
}

// open opens this node's replica, a new one if there is none.
func (s *Seat) open(v *control.Volume, slot mirror.ReplicaID) error {
	err := s.openStore(v)
	if useless(err) && empty(v.Replicas[slot]) {
		err = errors.Join(s.moveAway(v), s.openStore(v))
	}
	if err != nil {
		s.rest = time.Now().Add(openPause)
		return err
	}
	s.follow()
	return nil
}

// openPause is how long a copy that can't be opened is left alone.
const openPause = time.Second

// openStore opens this node's copy, and makes it as large as the volume is.
func (s *Seat) openStore(v *control.Volume) error {
	dir := s.h.dirOf(v)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("open the replica: %w", err)
	}
	path, size := filepath.Join(dir, "data"), v.Size
	if file, err := os.Stat(path); err == nil { // it may have grown, and this node's state be from before that
		size = max(size, file.Size())
	}
	st, err := s.h.conf.Open(store.Options{Path: path, Size: size, Grow: true, Direct: s.h.conf.Direct})
	if err != nil {
		return fmt.Errorf("open the replica: %w", err)
	}
	for _, w := range st.Warnings() {
		s.log.Warn("store", "warning", w)
	}
	_, err = st.ReadRecord(listedRecord)
	s.listed = err == nil
	s.mu.Lock()
	s.store = st
	s.mu.Unlock()
	return nil
}

// follow begins to take what a primary sends.
func (s *Seat) follow() {
	r := mirror.NewReplica(mirror.ReplicaConfig{
		Store: s.store, Group: true, Agreed: s.agreed, Origins: s.origins, SyncTimeout: s.h.conf.SyncTimeout, Log: s.log,
	})
	s.agreed, s.origins = false, mirror.Origins{}
	s.become(Following, r, nil)
}

func (s *Seat) become(role Role, r *mirror.Replica, l *lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.role != role {
		s.log.Info("role", "is", role, "was", s.role)
	}
	s.role, s.replica, s.lead = role, r, l
	close(s.changed)
	s.changed = make(chan struct{})
}

// leave ends the seat when the node stops: somebody else goes on with what it leads.
func (s *Seat) leave(ctx context.Context) {
	if s.leading() != nil {
		if err := s.handOverToAny(ctx); err != nil {
			s.log.Warn("not handed over before the stop", "err", err)
		}
	}
	s.end()
}

// end closes everything.
func (s *Seat) end() {
	s.routes.close()
	if l := s.leading(); l != nil {
		s.stepDown(l, false)
	}
	if s.stopped != nil {
		<-s.stopped
		s.ended()
	}
	s.mu.Lock()
	st, r := s.store, s.replica
	deleted := s.record == nil
	s.mu.Unlock()
	s.become(Bystander, nil, nil)
	if st == nil {
		return
	}
	if r != nil {
		r.Retire()
	}
	if err := st.CloseClean(); err != nil {
		s.log.Error("close the replica", "err", err)
	}
	if deleted {
		s.remove(st)
	}
}

// remove deletes the files of a volume that was deleted.
func (s *Seat) remove(st *store.Store) {
	if err := os.RemoveAll(filepath.Dir(st.Path())); err != nil {
		s.log.Error("remove the replica of a deleted volume", "err", err)
	}
}

// Name is the volume's.
func (s *Seat) Name() string { return s.name }

// Record is the volume's, as far as this node knows; nil if it was deleted.
func (s *Seat) Record() *control.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// Role is this node's, now.
func (s *Seat) Role() Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role
}

func (s *Seat) leading() *lead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lead
}

// await waits until the seat is in a role that ok accepts.
func (s *Seat) await(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// do has the seat's goroutine do something, and returns what came of it.
func (s *Seat) do(ctx context.Context, do func(context.Context) error) error {
	e := errand{do: func(context.Context) error { return do(ctx) }, done: make(chan error, 1)}
	select {
	case s.asked <- e:
	case <-s.gone:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-e.done
}
