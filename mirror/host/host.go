package host

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/store"
)

// Config says whose host this is, and how it runs its volumes.
type Config struct {
	Name  string // of this node
	Dir   string // of the replicas
	Group Group
	// Open opens a replica's store; [store.Open] if nil.
	Open func(store.Options) (*store.Store, error)
	// Direct bypasses the page cache.
	Direct bool
	// Resync bounds what resync takes from clients.
	Resync mirror.PaceConfig
	// Congestion, Wrap: see mirror.Config.
	Congestion string
	Volume     func(*mirror.Config) // a last change to how a volume is led; may be nil
	// Preface makes the first bytes of a connection that carries a volume's replication.
	Preface func(volume string) []byte
	// SyncTimeout is how long a replica's disk may take to sync before it counts as lost.
	// Default 2 s.
	SyncTimeout time.Duration
	// DiskTimeout is how long the primary's disk may take over something before another
	// copy in sync is made primary. Default 500 ms.
	DiskTimeout time.Duration
	// IsolationTimeout is how long clients wait for a primary where the policy is to give
	// them errors then. Default 10 s.
	IsolationTimeout time.Duration
	Log              *slog.Logger
}

// What Config leaves open.
const (
	DefaultSyncTimeout = 2 * time.Second
	DefaultDiskTimeout = 500 * time.Millisecond
	DefaultIsolation   = 10 * time.Second
)

// Host is a node's part in all volumes. Its methods may be called concurrently.
type Host struct {
	conf    Config
	running sync.WaitGroup

	mu    sync.Mutex
	seats map[control.ID]*Seat
}

// New returns a host that does nothing before Run.
func New(conf Config) *Host {
	if conf.Open == nil {
		conf.Open = store.Open
	}
	if conf.DiskTimeout == 0 {
		conf.DiskTimeout = DefaultDiskTimeout
	}
	if conf.SyncTimeout == 0 {
		conf.SyncTimeout = DefaultSyncTimeout
	}
	if conf.IsolationTimeout == 0 {
		conf.IsolationTimeout = DefaultIsolation
	}
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	return &Host{conf: conf, seats: map[control.ID]*Seat{}}
}

// Run follows the group until ctx ends. Then it hands over what this node leads, where
// another copy is in sync, and returns when every store is closed in good order.
func (h *Host) Run(ctx context.Context) {
	defer h.running.Wait()
	for {
		changed := h.conf.Group.Changed()
		h.look(ctx, h.conf.Group.State())
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// look takes in the state: volumes come and go, and each seat is told.
func (h *Host) look(ctx context.Context, s *control.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := map[control.ID]bool{}
	for _, v := range s.Volumes {
		there[v.ID] = true
		seat := h.seats[v.ID]
		if seat == nil {
			seat = newSeat(h, v)
			seat.tell(v) // first: a seat that knows of no volume ends
			h.seats[v.ID] = seat
			h.running.Go(func() { seat.run(ctx) })
		}
		seat.tell(v)
	}
	for id, seat := range h.seats {
		if !there[id] {
			seat.tell(nil)
			delete(h.seats, id)
		}
	}
}

// Seat returns this node's part in a volume, or nil if it knows of none by that name.
func (h *Host) Seat(volume string) *Seat {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.seats {
		if s.name == volume {
			return s
		}
	}
	return nil
}

// Seats returns this node's part in every volume, in no order.
func (h *Host) Seats() []*Seat {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Seat, 0, len(h.seats))
	for _, s := range h.seats {
		all = append(all, s)
	}
	return all
}

// dirOf is where a volume's replica is: a volume that is deleted and made again under
// the same name is another one.
func (h *Host) dirOf(v *control.Volume) string {
	return filepath.Join(h.conf.Dir, v.Name+"-"+v.ID.String()[:8])
}
