package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// lead is what a node has while it is a volume's primary.
type lead struct {
	volume  *mirror.Volume
	server  *forward.Server // of other nodes' clients; nil while it may not be used
	service *service
	addrs   []string // of the members' nodes
	policy  control.Policy
	size    int64
	stuck   time.Time // since when nothing can be acknowledged; zero if it can
}

// Grace is how long a replica waits after its last promise before it claims the volume:
// longer than a lease by more than clocks can drift apart meanwhile.
func Grace(lease time.Duration) time.Duration { return lease * 3 / 2 }

// proposeTimeout bounds a claim: then the record tells what came of it.
const proposeTimeout = 5 * time.Second

// obey takes an operator's word, given with the acceptance of loss, that this copy
// is the volume.
func (s *Seat) obey(v *control.Volume, slot mirror.ReplicaID) error {
	if !v.Forced || slotOf(v, v.Primary) != slot || s.store.Meta().Complete || v.Epoch < s.store.Meta().Epoch {
		return nil
	}
	s.log.Warn("data loss is accepted: what this copy lacks is gone", "why", s.store.Meta().Why)
	s.replica.Retire()
	err := s.store.Update(func(m *store.Meta) {
		m.Volume, m.Complete, m.Lossy, m.Why = wire.ID(v.ID), true, false, ""
	})
	s.obeyed = v.Epoch
	s.follow()
	return err
}

// claim makes this node the primary if it is its turn, and the group agrees.
func (s *Seat) claim(ctx context.Context, v *control.Volume, slot mirror.ReplicaID) error {
	rec := recordOf(v)
	if rec.Primary == slot { // the one before may not know it yet, and would keep this copy from its turn
		s.replica.Fence(rec.Epoch)
	}
	if time.Now().Before(s.rest) || rec.Primary != slot && v.Policy.Failover == "manual" {
		return nil
	}
	next, ok := s.replica.Claim(rec, slot, Grace(v.Lease()))
	if !ok {
		return nil
	}
	return s.take(ctx, v, slot, next, rec.Primary == slot && rec.By == slot, why(rec, slot))
}

// why a claim is made, for people.
func why(rec mirror.Record, self mirror.ReplicaID) string {
	switch {
	case rec.Epoch == 0:
		return "the volume is new"
	case rec.Primary != self:
		return "nothing was heard of the primary"
	case rec.By == self:
		return "the primary came back"
	case rec.By == mirror.NoReplica:
		return "an operator asked for it"
	}
	return "the primary handed over"
}

// take proposes next, which this copy may claim, and leads if it wins. led says that
// this node led under v.
func (s *Seat) take(ctx context.Context, v *control.Volume, slot mirror.ReplicaID, next mirror.Configuration, led bool, why string) error {
	before := recordOf(v)
	if !led {
		if err := mirror.Forget(s.store, before); err != nil {
			return fmt.Errorf("claim the volume: %w", err)
		}
	}
	rec := mirror.Record{Configuration: next, By: slot, Stores: before.Stores}
	rec.Stores[slot] = s.store.Meta().Replica
	service := s.service(v)
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	in, won, err := service.propose(ctx, rec, why)
	if err != nil {
		return fmt.Errorf("claim the volume: %w", err)
	}
	s.tell(in)
	if !won || recordOf(in).Epoch != next.Epoch {
		return nil
	}
	return s.promote(v, in, slot, service, led)
}

func (s *Seat) service(v *control.Volume) *service {
	service := &service{group: s.h.conf.Group, volume: s.name, node: s.h.conf.Name}
	for _, r := range v.Replicas {
		service.nodes = append(service.nodes, r.Node)
	}
	return service
}

// addrs are the addresses of a volume's members, by their numbers.
func (s *Seat) addrs(v *control.Volume) (addrs []string) {
	nodes := s.h.conf.Group.State().Nodes
	for _, r := range v.Replicas {
		addrs = append(addrs, nodes[r.Node].Addr)
	}
	return addrs
}

// promote begins to lead under in, which replaced before.
func (s *Seat) promote(before, in *control.Volume, slot mirror.ReplicaID, service *service, led bool) error {
	state, origins := s.replica.Retire()
	if before.Epoch == 0 { // nothing was ever written: this copy has all of that
		state.Complete = true
		if err := s.store.Update(func(m *store.Meta) { m.Volume, m.Complete = wire.ID(in.ID), true }); err != nil {
			s.follow()
			return fmt.Errorf("begin the volume: %w", err)
		}
	}
	l := &lead{service: service, addrs: s.addrs(in), policy: in.Policy, size: s.store.Size()}
	conf := s.conf(in)
	conf.Reign = &mirror.Reign{
		Service: service, Self: slot, Addrs: l.addrs,
		Record: recordOf(in), Before: replaced(before), Led: led, State: state, Origins: origins, Lease: in.Lease(),
	}
	volume, err := mirror.Open(conf)
	if err != nil {
		s.rest = time.Now().Add(failPause)
		s.follow()
		return fmt.Errorf("lead the volume: %w", err)
	}
	l.volume = volume
	s.become(Leading, nil, l)
	if state.Complete && !(before.Forced && s.obeyed == before.Epoch) {
		s.admit(l, in)
	}
	return nil
}

// replaced is the record before a promotion. Who gave its place up and left with that was
// in sync until then.
func replaced(v *control.Volume) mirror.Record {
	r := recordOf(v)
	if r.By != mirror.NoReplica && r.By != r.Primary {
		r.InSync = r.InSync.With(r.By)
	}
	return r
}

// admit lets clients use what is led.
func (s *Seat) admit(l *lead, v *control.Volume) {
	server := forward.NewServer(forward.ServerConfig{
		Size: l.size, Incarnation: v.Incarnation, Log: s.log,
		Generation: s.generation, Superseded: s.routes.supersede,
	})
	s.mu.Lock()
	l.server = server
	s.mu.Unlock()
	s.become(Leading, nil, l)
}

// park holds back what clients ask for: those of this node wait, those of others come
// again. What is in flight goes on, and nothing more is on its way to the volume.
func (s *Seat) park(l *lead) {
	if server := s.unhook(l); server != nil {
		server.Close()
	}
	s.routes.drain()
}

// unhook is park that waits for nothing: a disk that hangs may hold up who is on the way.
func (s *Seat) unhook(l *lead) *forward.Server {
	s.mu.Lock()
	server := l.server
	l.server = nil
	s.mu.Unlock()
	s.routes.set(forward.Route{})
	return server
}

// generation is the newest of a named client, as far as this node knows.
func (s *Seat) generation(client string) uint64 {
	if v := s.Record(); v != nil {
		return v.Clients[client]
	}
	return 0
}

// conf is how a volume is led here.
func (s *Seat) conf(v *control.Volume) mirror.Config {
	lease := v.Lease()
	conf := mirror.Config{
		Volume: s.name, Store: s.store, Durable: v.Policy.Ack == "durable",
		Continue: v.Policy.OnLoss != "suspend", LossTimeout: lease / 3, Beat: lease / 4, Silence: lease,
		Resync: s.h.conf.Resync, Complete: forward.Dispatch, Preface: s.h.conf.Preface(s.name),
		Timeout: time.Second, DiskTimeout: diskTimeout(s.h.conf.DiskTimeout, lease), Congestion: s.h.conf.Congestion, Log: s.log,
	}
	if s.h.conf.Volume != nil {
		s.h.conf.Volume(&conf)
	}
	return conf
}

// diskTimeout bounds how long the primary's disk may take: longer than it takes to find
// that a copy is lost, so that the one that is to take over is known to be there.
func diskTimeout(limit, lease time.Duration) time.Duration { return max(limit, lease*5/3) }

// reign sees to a volume that is led.
func (s *Seat) reign(ctx context.Context, v *control.Volume, slot mirror.ReplicaID) error {
	l := s.leading()
	rec := l.service.record(v)
	changed := !slices.Equal(l.addrs, s.addrs(v)) || l.policy != v.Policy || l.size != v.Size
	own := rec.Primary == slot && rec.Epoch <= l.volume.Epoch()+1
	l.volume.Committed(rec) // also a change, so that nobody waits for, or proposes, who is no member any more
	select {
	case <-l.volume.Ended():
		s.deposed(v, l)
		return nil
	default:
	}
	switch {
	case !own:
		return nil // the volume ends at once
	case changed:
		return s.again(ctx, v, slot)
	}
	if l.server == nil {
		return s.begin(ctx, v, l)
	}
	if l.cutOff(time.Now(), v) {
		s.log.Warn("this node leads no more: it reaches neither the other copies nor the group, and clients are to get errors then")
		s.stepDown(l, false)
	}
	return nil
}

// cutOff says that a volume, whose clients are to get errors rather than wait, has been
// waiting for too long for what only the group could decide. Its clients count as
// without a primary from then on. One that suspends itself when it lost a copy does
// what it is to do.
func (l *lead) cutOff(at time.Time, v *control.Volume) bool {
	switch {
	case v.Policy.OnIsolation != "error" || v.Policy.OnLoss == "suspend" || !l.volume.Stuck():
		l.stuck = time.Time{}
	case l.stuck.IsZero():
		l.stuck = at
	default:
		return at.Sub(l.stuck) > 4*Grace(v.Lease())
	}
	return false
}

// begin opens a volume to clients whose primary lost power: what is lost is known to
// be lost only when the copies in sync agree, and those who used it must hear of it.
func (s *Seat) begin(ctx context.Context, v *control.Volume, l *lead) error {
	if !l.volume.Status().Serving {
		return nil
	}
	c := control.NewIncarnation(s.name, v.Epoch)
	c.Why = "this copy may lack acknowledged writes, and no better one is left"
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	r, err := s.h.conf.Group.Do(ctx, c)
	if err != nil || r.Volume == nil || !r.Won {
		return err
	}
	s.admit(l, r.Volume)
	s.tell(r.Volume)
	return nil
}

// deposed ends what was led, after it ended by itself.
func (s *Seat) deposed(v *control.Volume, l *lead) {
	cause := l.volume.Cause()
	s.log.Warn("this node leads no more", "why", cause)
	switch {
	case errors.Is(cause, mirror.ErrStalled), errors.Is(cause, mirror.ErrFailed):
		s.rest = time.Now().Add(failPause)
		s.giveUp(l)
	case errors.Is(cause, mirror.ErrBetterCopy): // whoever has it needs the time
		s.rest = time.Now().Add(4 * Grace(v.Lease()))
	}
	s.stepDown(l, false)
}

// failPause is how long a copy does not claim the volume that failed to lead it.
const failPause = 5 * time.Second

// giveUp names another primary after the disk of this one failed or began to hang.
func (s *Seat) giveUp(l *lead) {
	to := l.volume.Successor()
	if to == mirror.NoReplica {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), proposeTimeout)
	defer cancel()
	in, err := l.volume.HandOver(ctx, to, false)
	if err != nil || in.Primary != to {
		s.complain(fmt.Errorf("name another primary, since the disk here fails: %w", errors.Join(err, errors.New("another change came first"))))
	}
}

// stepDown stops what was led. Ops come back as the last local I/O ends, and go to
// whoever leads then. agreed says that every write was complete.
func (s *Seat) stepDown(l *lead, agreed bool) {
	s.agreed = agreed
	server := s.unhook(l)
	s.become(Stopping, nil, nil)
	if v := s.Record(); v != nil {
		s.routes.set(s.route(v))
	}
	stopped := make(chan struct{})
	s.stopped, s.ending = stopped, l
	go func() {
		defer close(stopped)
		var closing sync.WaitGroup // at once: who is on the way to a disk that hangs must not keep the volume alive
		closing.Go(l.volume.Close)
		if server != nil {
			server.Close()
		}
		closing.Wait()
	}()
}

// ended notes that what was led has stopped, and follows.
func (s *Seat) ended() {
	s.stopped, s.origins, s.ending = nil, s.ending.volume.Origins(), nil
}

// disown lets clients go to who leads now with what a disk that hangs still has of
// theirs. That is safe when this copy has left the in-sync set.
func (s *Seat) disown(v *control.Volume, slot mirror.ReplicaID) {
	left := slot == mirror.NoReplica || !v.Replicas[slot].InSync
	if s.ending != nil && left && v.Epoch > s.ending.volume.Epoch() {
		s.ending.volume.Disown()
	}
}
