package sim

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
)

// node is one machine with one disk and one process, which is a replica and, for
// as long as it is primary, also that.
type node struct {
	c     *cluster
	id    mirror.ReplicaID
	rand  *rand.Rand
	clock clock

	disk   *memfs.FS
	disks  uint64 // how many it has had
	boots  uint64
	up     bool
	paused bool
	broken bool     // its disk; the process does not start
	asleep bool     // it is down, and its copy was whole then, and is
	doomed bool     // its disk stops at one of the next changes
	life   int      // of the process; timers of an earlier one do nothing
	late   []func() // what is to be done when the pause is over

	slowSync, slowWrite time.Duration // until then syncs and writes take long

	store    *store.Store
	follower *mirror.Follower
	sessions []*session // connections that primaries opened
	current  *session   // the one that the follower serves
	lead     *lead      // this node is primary, or being promoted

	taking   bool          // a proposal to become primary is on its way
	proposed time.Duration // when the last one was sent
	rest     time.Duration // not primary again, by its own proposal, before that
	permit   uint64        // the operator's word: this node may follow that epoch, though it lost power
	force    bool          // and counts as whole
	forced   bool          // it did so
}

func (n *node) place() place { return place(n.id) }

// now is the node's own clock.
func (n *node) now() time.Duration { return n.clock.at(n.c.now) }

func (n *node) trace(format string, args ...any) {
	if n.c.out != nil {
		n.c.traceNode(n.id, format, args...)
	}
}

// run does something that came from outside: not while the process is down, and
// after the pause while it is paused.
func (n *node) run(do func()) {
	switch {
	case !n.up:
	case n.paused:
		n.late = append(n.late, do)
	default:
		do()
		n.meetDoom()
	}
}

// after does something later in the same life of the process.
func (n *node) after(d time.Duration, do func()) {
	life := n.life
	n.c.after(d, func() {
		if n.life == life {
			n.run(do)
		}
	})
}

// every does something again and again in the same life of the process.
func (n *node) every(interval time.Duration, do func()) {
	n.after(interval, func() {
		n.every(interval, do)
		do()
	})
}

// newDisk gives the node an empty disk.
func (n *node) newDisk() {
	n.disks++
	n.broken, n.forced, n.asleep = false, false, false
	n.disk = memfs.New(n.rand.Uint64())
}

// start starts the process. It does not come up on a broken store.
func (n *node) start() {
	if !n.up {
		n.boot()
		n.meetDoom()
	}
}

func (n *node) boot() {
	s, err := store.Open(store.Options{
		Path: "/volume", Size: volumeSize, Region: regionSize, Block: blockSize, FS: n.disk,
		BootID: func() ([16]byte, error) { return n.identity('b', n.boots), nil },
		NewID:  func() [16]byte { return n.identity('r', n.disks) },
	})
	if err != nil {
		n.trace("does not start: %v", err)
		if n.broken = errors.Is(err, store.ErrBroken); !n.broken {
			n.c.after(time.Second, n.start)
		}
		return
	}
	n.life++
	n.store, n.up = s, true
	n.beFollower()
	m := s.Meta()
	n.trace("starts: epoch %d, complete %v, lossy %v", m.Epoch, m.Complete, m.Lossy)
	n.rest = n.now() + n.between(0, time.Second)
	n.poll()
}

// identity is an ID that no other thing has.
func (n *node) identity(kind byte, number uint64) (id [16]byte) {
	id[0], id[1] = kind, byte(n.id)
	binary.BigEndian.PutUint64(id[8:], number)
	return id
}

// beFollower begins to be a replica that remembers nothing but what is on its disk.
func (n *node) beFollower() {
	n.lead, n.current, n.taking = nil, nil, false
	n.follower = mirror.NewFollower(mirror.IdentityOf(n.store.Meta()), volumeSize, n.store.New(), n.now())
}

// kill ends the process: the page cache stays, and who is connected hears of it.
func (n *node) kill() {
	n.down((*end).close)
	n.disk.Kill()
}

// losePower ends it without a word, and with the page cache.
func (n *node) losePower() {
	n.down((*end).vanish)
	n.asleep = false
	n.disk.Crash([]float64{0, 0.3, 0.7, 1}[n.rand.IntN(4)])
	n.boots++
}

// fail ends the process because its disk cannot be trusted any more.
func (n *node) fail(err error) {
	n.trace("fails: %v", err)
	n.kill()
	n.c.after(time.Second, n.start)
}

func (n *node) down(end func(*end)) {
	n.doomed = false
	n.disk.CrashAt(0)
	if !n.up {
		return
	}
	if n.lead != nil {
		n.lead.interrupt(end)
	}
	for _, s := range n.sessions {
		s.over = true
		end(s.end)
	}
	n.asleep = n.store.Meta().Complete
	n.sessions, n.current, n.lead, n.late = nil, nil, nil, nil
	n.up, n.paused, n.taking, n.store = false, false, false, nil
	n.life++
}

// whole says whether this copy has every acknowledged write, as far as it knows.
func (n *node) whole() bool {
	if n.up {
		m := n.store.Meta()
		return m.Complete && m.Broken == ""
	}
	return n.asleep && !n.broken
}

func (n *node) pause() { n.paused = n.up }

// resume goes on with what came while the node was paused.
func (n *node) resume() {
	if !n.paused {
		return
	}
	n.paused = false
	late := n.late
	n.late = nil
	for i, do := range late {
		if n.paused || !n.up { // it ended itself meanwhile
			if n.up {
				n.late = append(append([]func(){}, late[i:]...), n.late...)
			}
			return
		}
		do()
		n.meetDoom()
	}
}

// between is a random time from low to high.
func (n *node) between(low, high time.Duration) time.Duration {
	return low + time.Duration(n.rand.Int64N(int64(high-low)+1))
}

// diskTime is how long a read or write takes.
func (n *node) diskTime() time.Duration {
	d := n.between(20*time.Microsecond, 400*time.Microsecond)
	if n.slowWrite > n.c.now {
		d += n.between(0, 300*time.Millisecond)
	}
	return d
}

// syncTime is how long a sync takes.
func (n *node) syncTime() time.Duration {
	d := n.between(200*time.Microsecond, 4*time.Millisecond)
	if n.slowSync > n.c.now {
		d += n.between(0, 2*time.Second)
	}
	return d
}
