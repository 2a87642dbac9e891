package sim

import (
	"encoding/binary"
	"errors"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
)

// node is one machine with one disk and one process, which is a replica and, for
// as long as it is primary, also that; and a member of the group.
type node struct {
	process
	id mirror.ReplicaID

	disk   *memfs.FS
	disks  uint64 // how many it has had
	boots  uint64
	broken bool // its disk; the process does not start
	asleep bool // it is down, and its copy was whole then, and is
	doomed bool // its disk stops at one of the next changes

	slowSync, slowWrite time.Duration // until then syncs and writes take long

	store    *store.Store
	follower *mirror.Follower
	sessions []*session // connections that primaries opened
	current  *session   // the one that the follower serves
	lead     *lead      // this node is primary, or being promoted
	voter    *voter
	senders  []*sender // of commands, that are idle

	taking   bool          // a proposal to become primary is on its way
	proposed time.Duration // when the last command was sent
	rest     time.Duration // not primary again, by its own proposal, before that
	permit   uint64        // the operator's word: this node may follow that epoch, though it lost power
	force    bool          // and counts as whole
	forced   bool          // it did so
	forgot   bool          // though it had no copy that was ever whole
}

func (n *node) trace(format string, args ...any) {
	if n.c.out != nil {
		n.c.traceNode(n.id, format, args...)
	}
}

// newDisk gives the node an empty disk.
func (n *node) newDisk() {
	n.disks++
	n.broken, n.forced, n.forgot, n.asleep = false, false, false, false
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
	n.begin()
	n.store = s
	n.voter.start()
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
	n.sessions, n.current, n.lead, n.senders = nil, nil, nil, nil
	n.taking, n.store = false, nil
	n.end()
}

// whole says whether this copy has every acknowledged write, as far as it knows.
func (n *node) whole() bool {
	if n.up {
		m := n.store.Meta()
		return m.Complete && m.Broken == ""
	}
	return n.asleep && !n.broken
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
