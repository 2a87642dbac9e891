package mirror

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"lockstep/mirror/wire"
)

// Store is what a volume needs of one copy on disk; package mirror/store has it.
// All methods may be called concurrently.
type Store interface {
	ReadAt(p []byte, off int64) error
	ReadCached(p []byte, off int64) error // an error means only: use ReadAt
	WriteAt(p []byte, off int64) error
	Zero(off, length int64, allocate bool) error
	Sync() error
	Data(off int64) (start, end int64, err error)
	Size() int64
}

// Config says what a volume is and how it is mirrored.
type Config struct {
	// Volume is the name that replicas and errors show.
	Volume string
	// Store is the primary's own copy: the truth. It stays the caller's to close.
	Store Store
	// New says that Store holds nothing yet. A replica that holds something is then
	// not overwritten but refused: more likely the store is the wrong one.
	New bool
	// Replicas are the addresses, HOST:PORT, of the in-sync set's other members.
	// Every one must acknowledge every write.
	Replicas []string
	// Durable asks for the contract `durable`: every write is acknowledged from
	// stable storage at every site. Default is `written`.
	Durable bool
	// Complete gets every op back, in batches, on the goroutine that noticed.
	// It must not wait for the volume. The slice is reused after it returns.
	Complete func([]*Op)
	// Wrap, if set, replaces a replica's connection as soon as it is made, e.g. by
	// one that polls busily. What it returns must have a SyscallConn.
	Wrap func(net.Conn) (net.Conn, error)
	// Timeout is how long sent bytes may stay unacknowledged, or a connection
	// attempt unanswered, before the connection is given up and made anew.
	// Default 3 s; it must be well above the round trip.
	Timeout time.Duration
	// Congestion names the TCP congestion control of replication connections;
	// empty leaves the system's.
	Congestion string
	// Log gets one line for each change of a replica's state. Default: none.
	Log *slog.Logger
}

// DefaultTimeout is Config.Timeout's default.
const DefaultTimeout = 3 * time.Second

// firstEpoch is the epoch of a configuration that flags fixed. The raft group
// will give out higher ones.
const firstEpoch = 1

// maxSlow bounds the goroutines that wait for the local disk for a volume.
const maxSlow = 64

// Volume is a primary: it does ops on its own store and on every replica. It is
// the driver of a [Machine]: the Machine decides, the Volume does.
type Volume struct {
	conf    Config
	session wire.ID
	links   []*link
	sync    *syncer
	slow    chan struct{} // a token for each slow op that runs
	stop    context.CancelFunc
	running sync.WaitGroup
	batches sync.Pool // *batch

	mu      sync.Mutex
	machine *Machine
	closed  bool
	changed chan struct{} // closed and replaced whenever a replica comes or goes
}

// Open starts the primary of a volume and connects its replicas in the
// background; [Volume.Wait] tells when they are in sync.
func Open(conf Config) (*Volume, error) {
	if conf.Timeout == 0 {
		conf.Timeout = DefaultTimeout
	}
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	if len(conf.Replicas) > MaxReplicas {
		return nil, fmt.Errorf("open volume: %d replicas, at most %d are possible", len(conf.Replicas), MaxReplicas)
	}
	if len(conf.Volume) > wire.MaxName {
		return nil, fmt.Errorf("open volume: a name of %d bytes, at most %d are allowed", len(conf.Volume), wire.MaxName)
	}
	ctx, stop := context.WithCancel(context.Background())
	v := &Volume{
		conf: conf,
		machine: NewMachine(Configuration{
			Epoch:    firstEpoch,
			Replicas: len(conf.Replicas),
			Durable:  conf.Durable,
		}),
		slow:    make(chan struct{}, maxSlow),
		stop:    stop,
		changed: make(chan struct{}),
	}
	rand.Read(v.session[:])
	v.batches.New = func() any { return new(batch) }
	v.sync = newSyncer(conf.Store.Sync, v.synced)
	v.running.Go(func() { v.sync.run(ctx) })
	for i, addr := range conf.Replicas {
		l := newLink(v, ReplicaID(i), addr)
		v.links = append(v.links, l)
	}
	for _, l := range v.links {
		v.running.Go(func() { l.run(ctx) })
	}
	return v, nil
}

// Wait returns when every replica is in sync, or with the reason why not when
// ctx ends.
func (v *Volume) Wait(ctx context.Context) error {
	for {
		v.mu.Lock()
		ready, changed := !v.machine.Suspended(), v.changed
		v.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for _, l := range v.links {
				if err := l.lastError(); err != nil {
					return err
				}
			}
			return ctx.Err()
		}
	}
}

// Submit starts ops. Each comes back through Config.Complete exactly once, maybe
// before Submit returns. Ops that overlap take effect in the order in which they
// were submitted. It may be called concurrently; the slice is the caller's again
// when it returns.
func (v *Volume) Submit(ops []*Op) {
	if len(v.links) > 0 {
		for _, op := range ops {
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
	v.mu.Unlock()
	v.finish(b)
	v.running.Done()
}

// Close stops the volume and waits for what it started. Ops that are still in
// flight come back with ErrClosed. The store is neither synced nor closed.
func (v *Volume) Close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.stop()
	v.running.Wait()
	b := v.batches.Get().(*batch)
	v.mu.Lock()
	v.machine.abandon(func(op *Op) {
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
		return &OpError{Op: "flush", Volume: v.conf.Volume, Epoch: firstEpoch, Err: ctx.Err(),
			Hint: "a replica is not in sync; what was acknowledged is in every site's cache"}
	}
}
