package mirror

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/mirror/wire"
)

// Config says what a volume is and how it is mirrored.
type Config struct {
	// Volume is the name that replicas and errors show.
	Volume string
	// Store is the primary's own copy: the truth. It stays the caller's to close.
	Store Store
	// Replicas are the addresses, HOST:PORT, of the other members.
	Replicas []string
	// Durable asks for the contract `durable`: every write is acknowledged from
	// stable storage at every site. Default is `written`.
	Durable bool
	// Continue takes a replica that is lost for LossTimeout out of the in-sync set,
	// so that writes go on without it. Otherwise they wait until every replica is in sync.
	Continue bool
	// LossTimeout is how long a replica may be lost before writes go on without it.
	// Default 5 s.
	LossTimeout time.Duration
	// AcceptDataLoss makes this copy the truth although it may lack acknowledged writes.
	AcceptDataLoss bool
	// Forget names replicas that are on record as in sync and not in Replicas any more.
	Forget []string
	// Resync bounds what resync takes from the volume's clients.
	Resync PaceConfig
	// Checkpoint is how often intents are given up and what replicas lack is saved. A
	// crash costs comparing what was written since the last one but one; more often
	// makes intents durable more often. Default 15 s.
	Checkpoint time.Duration
	// Complete gets every op back, in batches, on the goroutine that noticed.
	// It must not wait for the volume. The slice is reused after it returns.
	Complete func([]*Op)
	// Wrap, if set, replaces a replica's connection as soon as it is made, e.g. by
	// one that polls busily. What it returns must have a SyscallConn.
	Wrap func(net.Conn) (net.Conn, error)
	// Reign, if set, makes this copy the primary by the word of a configuration
	// service that others ask too; Replicas, AcceptDataLoss and Forget do not count then.
	Reign *Reign
	// DiskTimeout, if set, ends the volume (ErrStalled) when its disk takes longer over
	// something and another copy in sync can go on. It needs a Reign.
	DiskTimeout time.Duration
	// Timing, if set, is told where the time of a write went, now and then. It must not
	// wait, nor call the volume.
	Timing func(Timing)
	// Preface, if set, is sent before all else on each connection to a replica.
	Preface []byte
	// Timeout is how long sent bytes may stay unacknowledged, a heartbeat or a
	// connection attempt unanswered, before the connection is given up and made
	// anew. Default 3 s; it must be well above the round trip.
	Timeout time.Duration
	// Beat is the time between heartbeats, default Timeout/3; a replica that said nothing
	// for Silence is lost, default 2 Timeouts.
	Beat, Silence time.Duration
	// Congestion names the TCP congestion control of replication connections;
	// empty leaves the system's.
	Congestion string
	// Log gets one line for each change of a replica's state. Default: none.
	Log *slog.Logger
}

// What Config leaves open.
const (
	DefaultTimeout     = 3 * time.Second
	DefaultLossTimeout = 5 * time.Second
	DefaultCheckpoint  = 15 * time.Second
)

// blockSize is the granularity of what a replica missed, in bytes: what most
// writes are multiples of.
const blockSize = 4 << 10

// maxSlow bounds the goroutines that wait for the local disk for a volume.
const maxSlow = 64

// tickInterval is how often the machine learns that time passes, and resync is
// given a new budget.
const tickInterval = 50 * time.Millisecond

// Volume is a primary: it does ops on its own store and on every replica. It is
// the driver of a [Machine]: the Machine decides, the Volume does.
type Volume struct {
	conf          Config
	roster        roster
	group         *groupRoster // roster, if a group keeps it
	session       wire.ID
	links         []*link // by member; nil for this one and for numbers that nobody has
	others        []*link // those that are not nil
	sync          *syncer
	slow          chan struct{} // a token for each slow op that runs
	ctx           context.Context
	stop          context.CancelFunc
	running       sync.WaitGroup
	batches       sync.Pool // *batch
	pace          *pacer
	resyncing     atomic.Bool   // something is being copied or compared
	allowed       atomic.Int64  // bytes per second that resync may move
	resting       atomic.Bool   // resync rests, so that it is known what writes feel without it
	verifying     atomic.Int64  // bytes that verifications have left
	ended         chan struct{} // closed when the machine has stopped by itself
	saved         chan struct{} // capacity 1: a checkpoint is due now
	checkpointing sync.Mutex    // held for a whole checkpoint

	mu      sync.Mutex
	machine *Machine
	closed  bool
	cause   error         // why ended is closed
	told    bool          // that writes are refused
	changed chan struct{} // closed and replaced whenever a replica comes or goes
	sample  sample
	waited  time.Duration // in total, while writes could not complete
	degrade time.Duration // since when not every member is in sync; 0 if all are
}

// Open starts the primary of a volume and connects its replicas in the
// background; [Volume.Wait] tells when it takes writes. It refuses a store that
// is known not to have every acknowledged write.
func Open(conf Config) (*Volume, error) {
	conf.defaults()
	switch {
	case len(conf.addrs()) > MaxReplicas:
		return nil, fmt.Errorf("open volume: %d replicas, at most %d are possible", len(conf.addrs())-1, MaxReplicas-1)
	case len(conf.Volume) > wire.MaxName:
		return nil, fmt.Errorf("open volume: a name of %d bytes, at most %d are allowed", len(conf.Volume), wire.MaxName)
	}
	var members roster
	var err error
	var group *groupRoster
	if conf.Reign != nil {
		group = newGroupRoster(&conf)
		members = group
	} else if members, err = openRoster(&conf); err != nil {
		return nil, fmt.Errorf("open volume %q: %w", conf.Volume, err)
	}
	v := newVolume(conf, members)
	v.group = group
	if err := v.promote(); err != nil {
		v.stop()
		return nil, fmt.Errorf("open volume %q: %w", conf.Volume, err)
	}
	v.running.Go(func() { v.sync.run(v.ctx) })
	v.running.Go(v.ticks)
	v.running.Go(v.checkpoints)
	if conf.Reign != nil {
		v.running.Go(v.renewals)
	}
	for _, l := range v.others {
		v.running.Go(func() { l.run(v.ctx) })
	}
	return v, nil
}

func (c *Config) defaults() {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Beat == 0 {
		c.Beat = c.Timeout / 3
	}
	if c.Silence == 0 {
		c.Silence = 2 * c.Timeout
	}
	if c.Checkpoint == 0 {
		c.Checkpoint = DefaultCheckpoint
	}
	if c.LossTimeout == 0 {
		c.LossTimeout = DefaultLossTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func newVolume(conf Config, members roster) *Volume {
	v := &Volume{
		conf:    conf,
		roster:  members,
		slow:    make(chan struct{}, maxSlow),
		pace:    newPacer(conf.Resync),
		ended:   make(chan struct{}),
		saved:   make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
	v.ctx, v.stop = context.WithCancel(context.Background())
	rand.Read(v.session[:])
	v.batches.New = func() any { return new(batch) }
	v.sync = newSyncer(conf.Store.Sync, v.synced)
	v.machine = NewMachine(MachineConfig{
		Self:        conf.self(),
		Members:     members.all(),
		Wanted:      conf.wanted(),
		Lease:       conf.lease(),
		Durable:     conf.Durable,
		Suspend:     !conf.Continue,
		LossTimeout: conf.LossTimeout,
		Size:        conf.Store.Size(),
		Block:       blockSize,
		Region:      conf.Store.Meta().Region,
	})
	addrs := conf.addrs()
	v.links = make([]*link, len(addrs))
	for i, addr := range addrs {
		if id := ReplicaID(i); id != conf.self() && addr != "" {
			v.links[id] = newLink(v, id, addr)
			v.others = append(v.others, v.links[id])
		}
	}
	return v
}

// promote begins a new epoch with this copy as the truth.
func (v *Volume) promote() error {
	own, conf, err := v.roster.promotion(v.ctx)
	if err != nil {
		return err
	}
	v.conf.Log.Info("configuration", "epoch", conf.Epoch, "in_sync", conf.InSync.String())
	if own.State.Lossy {
		v.conf.Log.Warn("this copy lost its machine's power and may lack acknowledged writes: it waits for every store that was in sync; if one of them is gone for good, accept the loss (--accept-data-loss)")
	}
	v.tell(Event{Kind: EvCommitted, Conf: conf, Own: own})
	return nil
}

// now is the time since the machine started, suspended or not: a lease must run
// out while it sleeps.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("mirror: no CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// started is what the latencies of ops are measured from: the monotonic clock is
// read without a system call.
var started = time.Now()

// ticks tells the machine that time passes until the volume is closed.
func (v *Volume) ticks() {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	var budget int64
	for n, slices := 0, 1; ; n++ {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
		}
		if n%slices == 0 {
			n, slices, budget = 0, v.slices(), v.budget()
			tick.Reset(tickInterval / time.Duration(slices))
		}
		v.tell(Event{Kind: EvTick, Now: now(), Budget: budget / int64(slices)})
		v.watchDisk()
	}
}

// slices is in how many parts a tick's budget is given out: all at once it would be
// a burst that the writes of that moment wait behind.
func (v *Volume) slices() int {
	if v.resyncing.Load() {
		return 25
	}
	return 1
}

// noDeadline is for what redundancy does not wait for.
const noDeadline = 1000 * time.Hour

// budget is what resync may move to each replica until the next tick.
func (v *Volume) budget() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := now()
	if !v.readyLocked() {
		v.waited += tickInterval
	}
	if v.machine.Configuration().InSync == v.machine.conf.Members {
		v.degrade = 0
	} else if v.degrade == 0 {
		v.degrade = t
	}
	left, since := int64(0), v.degrade
	for _, l := range v.others {
		if s := v.machine.Member(l.id); s.Resyncing {
			left = max(left, s.Missed+s.Maybe)
		}
	}
	if n := v.verifying.Load(); left == 0 && n > 0 {
		left, since = n, t+noDeadline
	}
	v.resyncing.Store(left > 0)
	budget := v.pace.tick(t, left, since)
	v.resting.Store(budget == 0)
	if budget > 0 {
		v.allowed.Store(min(budget*int64(time.Second/tickInterval), v.pace.conf.Ceiling))
	}
	return budget
}

// Ended is closed when the volume has stopped by itself; [Volume.Cause] then says why.
func (v *Volume) Ended() <-chan struct{} { return v.ended }

// Cause is why the volume has stopped by itself, or nil.
func (v *Volume) Cause() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cause
}

// readyLocked says whether the volume takes writes.
func (v *Volume) readyLocked() bool {
	return v.machine.Ready() && (!v.roster.wantsAll() || v.machine.Configuration().InSync == v.machine.conf.Members)
}

// Wait returns when the volume takes writes, or with the reason why not when ctx
// ends or the volume does. A new volume waits for every replica, whatever the policy.
func (v *Volume) Wait(ctx context.Context) error {
	for {
		v.mu.Lock()
		ready, changed := v.readyLocked(), v.changed
		v.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-v.ended:
			return v.fail("promote", v.Cause(), "")
		case <-ctx.Done():
			for _, l := range v.others {
				if err := l.lastError(); err != nil {
					return err
				}
			}
			return ctx.Err()
		}
	}
}

func (v *Volume) fail(op string, err error, hint string) error {
	return &OpError{Op: op, Volume: v.conf.Volume, Epoch: v.epoch(), Err: err, Hint: hint}
}

func (v *Volume) epoch() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.machine.Configuration().Epoch
}

// Submit starts ops. Each comes back through Config.Complete exactly once, maybe
// before Submit returns. Ops that overlap take effect in the order in which they
// were submitted. It may be called concurrently; the slice is the caller's again
// when it returns.
func (v *Volume) Submit(ops []*Op) {
	began := time.Since(started)
	for _, op := range ops {
		op.began = began
		if len(v.others) > 0 {
			op.cut()
		}
	}
	b := v.batches.Get().(*batch)
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		for _, op := range ops {
			op.Err = ErrClosed
		}
		v.complete(ops)
		return
	}
	v.running.Add(1) // under mu, so that Close waits for it
	for _, op := range ops {
		v.step(b, Event{Kind: EvSubmit, Op: op})
	}
	if v.conf.Timing != nil && len(b.done) == 0 { // else ops may be the client's again
		v.sample.choose(ops[0], began)
	}
	v.mu.Unlock()
	v.finish(b)
	v.running.Done()
}

// Close stops the volume and waits for what it started. Ops that are still in
// flight come back with ErrClosed. The store is neither synced nor closed; see
// [Volume.Settle] for what should come before.
func (v *Volume) Close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.stop()
	v.running.Wait()
	b := v.batches.Get().(*batch)
	v.mu.Lock()
	v.sample.op = nil
	v.machine.Abandon(func(op *Op) {
		op.Err = ErrClosed
		b.done = append(b.done, op)
	})
	v.mu.Unlock()
	v.finish(b)
}

// Flush makes everything that was completed before durable at every site, or
// returns why not when ctx ends. The caller must not be inside Complete.
func (v *Volume) Flush(ctx context.Context) error {
	done := make(chan struct{})
	op := &Op{Kind: Flush, internal: done}
	v.Submit([]*Op{op})
	select {
	case <-done:
		return op.Err
	case <-ctx.Done():
		return v.fail("flush", ctx.Err(), "a replica is not in sync; what was acknowledged is in every site's cache")
	}
}
