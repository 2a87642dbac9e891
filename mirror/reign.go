package mirror

import (
	"context"
	"errors"
	"time"

	"lockstep/mirror/wire"
)

// ErrRefused: what a volume wanted to propose can never be in force, because its members
// are others now.
var ErrRefused = errors.New("the configuration service refuses this volume's proposal")

// Service keeps the configuration of a volume for all its members: a raft group.
type Service interface {
	// Propose asks for next to follow the epoch before it, and returns what is in force
	// then: next, or what came first. It tries until that is known, or ctx ends, or next
	// can never be (ErrRefused).
	Propose(ctx context.Context, next Record) (Record, error)
	// Renew asks for a lease for the primary of an epoch: while it holds, the service
	// lets nobody take over from a primary that is alone in sync.
	Renew(ctx context.Context, epoch uint64) error
}

// Reign is what makes a copy the primary: the record that its node proposed and
// that is in force, and what it brings along from its time as a replica.
type Reign struct {
	Service Service
	Self    ReplicaID
	Addrs   []string // of the members' nodes, HOST:PORT; empty for numbers that nobody has
	Record  Record
	Before  Record // the one that Record replaced
	// Led says that this node was the primary under Before: what it wrote down then of
	// who was not in sync still holds. Else it must have been forgotten (see [Forget]).
	Led     bool
	State   ReplicaState
	Origins Origins
	// Lease is MachineConfig's.
	Lease time.Duration
}

func (c *Config) self() ReplicaID {
	if c.Reign == nil {
		return 0
	}
	return c.Reign.Self
}

func (c *Config) lease() time.Duration {
	if c.Reign == nil {
		return 0
	}
	return c.Reign.Lease
}

// wanted are the members that are or were in sync: those have a store on record. Others
// were added, and writes need not wait until they have caught up.
func (c *Config) wanted() Set {
	if c.Reign == nil || c.Reign.Before.Epoch == 0 {
		return 0
	}
	wanted := c.Reign.Record.InSync | c.Reign.Before.InSync
	for i, store := range c.Reign.Record.Stores {
		if store != (wire.ID{}) {
			wanted = wanted.With(ReplicaID(i))
		}
	}
	return wanted
}

// addrs are the members', by their numbers; this copy's own does not count.
func (c *Config) addrs() []string {
	if c.Reign == nil {
		return append([]string{""}, c.Replicas...)
	}
	return c.Reign.Addrs
}

// leaseTime is the time that leases are judged by, or 0 where there are none: asking
// costs a system call.
func (v *Volume) leaseTime() time.Duration {
	if v.machine.conf.Lease == 0 {
		return 0
	}
	return now()
}

// renewals keeps the service's lease while this copy is alone in sync, or may be. It
// looks often, because writes wait for the first one.
func (v *Volume) renewals() {
	lease := v.conf.Reign.Lease
	tick := time.NewTicker(lease / 30)
	defer tick.Stop()
	for next := time.Duration(0); ; {
		v.mu.Lock()
		alone, epoch := v.machine.Alone(), v.machine.Configuration().Epoch
		v.mu.Unlock()
		if alone && now() >= next {
			next = v.renew(lease, epoch)
		}
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// renew asks for the lease once, and returns when to ask again.
func (v *Volume) renew(lease time.Duration, epoch uint64) (again time.Duration) {
	sent := now()
	ctx, cancel := context.WithTimeout(v.ctx, lease)
	defer cancel()
	if err := v.conf.Reign.Service.Renew(ctx, epoch); err != nil {
		return sent + lease/30
	}
	v.tell(Event{Kind: EvLease, Replica: v.machine.conf.Self, SentAt: sent, Now: now()})
	return sent + lease/6
}

// Committed tells the volume what is in force: somebody else may have proposed it.
// It may be called at any time, with what it knows already, too.
func (v *Volume) Committed(r Record) {
	if r.Epoch <= v.epoch() {
		return
	}
	if err := v.conf.adopt(r); err != nil {
		v.conf.Log.Error("can't record the configuration; it is taken in when that works", "err", err)
		return
	}
	v.group.inForce(r)
	v.tellUnlessClosed(Event{Kind: EvCommitted, Conf: r.Configuration, Gone: r.Gone, Now: now()})
}

// Stuck says that the volume serves, and yet nothing can be acknowledged now: it waits
// for a copy, or for the service to agree that it goes on without one.
func (v *Volume) Stuck() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.machine.now = max(v.machine.now, v.leaseTime())
	return v.machine.Serving() && v.machine.failed == nil && !(v.machine.Ready() && v.machine.leaseHeld())
}

// Epoch is the configuration's that is in force, as far as the volume knows.
func (v *Volume) Epoch() uint64 { return v.epoch() }

// Origins is what is remembered of retried ops: for who leads next, if that is this
// process again. It is for after Close.
func (v *Volume) Origins() Origins {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.machine.origins.Clone()
}

// gone are the members that are none any more.
func (v *Volume) gone() Set {
	if v.group == nil {
		return 0
	}
	v.group.mu.Lock()
	defer v.group.mu.Unlock()
	return v.group.record.Gone
}

// HandOver makes another member in sync the primary, and this volume stop. Nothing
// may be in flight that is to be acknowledged here. stay says that this copy remains
// in sync: its node is not about to be stopped. It returns what is in force then: if
// that is not the handover, another change came first.
func (v *Volume) HandOver(ctx context.Context, to ReplicaID, stay bool) (Configuration, error) {
	v.mu.Lock()
	c := v.machine.Configuration()
	v.mu.Unlock()
	next := Configuration{Epoch: c.Epoch + 1, Primary: to, InSync: c.InSync}
	if !stay {
		next.InSync = next.InSync.Without(v.machine.conf.Self)
	}
	in, err := v.roster.propose(ctx, next)
	if err == nil {
		v.tellUnlessClosed(Event{Kind: EvCommitted, Conf: in, Gone: v.gone(), Now: now()})
	}
	return in, err
}
