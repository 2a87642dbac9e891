package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// client uses the volume: it keeps a few requests in flight. One with a name is at a
// node, whose front sends them to whoever is primary; it may leave that for another
// node, which begins a new generation. One without has a front of its own.
type client struct {
	c       *cluster
	own     *process
	rand    *rand.Rand
	name    string
	stopped bool

	front  *front        // nil: it attaches
	asked  time.Duration // when it last asked for a generation
	queued []*call       // have no front yet
	took   []took        // ascending
}

// took is when a generation was first acknowledged something, and by which reign:
// nothing of an earlier one may take effect any more.
type took struct {
	generation, reign uint64
	at                time.Duration
}

// call is one request of a client and all attempts at it.
type call struct {
	record
	number  uint64 // in the session; 0 of what may be done twice
	attempt int
	sent    bool // on this connection
	sentAt  time.Duration
	gaveUp  time.Duration // then it is, without an answer
	final   bool
	data    []byte
}

const (
	watchInterval  = 250 * time.Millisecond
	attachTimeout  = 1500 * time.Millisecond
	meanStay       = 20 * time.Second // at a node where all is well
	meanStayAmid   = 2 * time.Second  // at one that does not answer
	impatientAfter = time.Second
)

// begin starts the client's slots, each a closed loop.
func (k *client) begin(slots int) {
	if k.name == "" {
		k.open(k.own, 0)
	} else {
		k.attach()
	}
	k.watch()
	for range slots {
		k.think()
	}
}

// attach begins a new generation at some node.
func (k *client) attach() {
	n := k.c.nodes[k.rand.IntN(k.c.opt.members)]
	if !n.up || n.paused {
		return
	}
	k.asked = k.c.now
	n.do(control.Attach(volumeName, k.name), func(r control.Result) {
		if k.front == nil && r.Won {
			k.c.stats.Attached++
			k.open(&n.process, r.Generation)
		}
	})
}

// open begins a session at a process, with what waits for one.
func (k *client) open(at *process, generation uint64) {
	k.front = newFront(k, at, generation)
	queued := k.queued
	k.queued = nil
	for _, q := range queued {
		k.front.add(q)
	}
}

// leave gives a front up, which may still send what it has; here it has no answer.
func (k *client) leave() {
	f := k.front
	k.front, k.asked = nil, k.c.now-attachTimeout
	for _, q := range f.calls {
		q.left, q.client, q.generation = true, k, f.generation
		k.finish(q)
	}
}

// superseded is when and by which reign a generation later than one was first
// acknowledged something.
func (k *client) superseded(generation uint64) (at time.Duration, reign uint64) {
	for _, t := range k.took {
		if t.generation > generation {
			return t.at, t.reign
		}
	}
	return never, ^uint64(0)
}

// acknowledged notes an answer to a generation.
func (k *client) acknowledged(generation, reign uint64) {
	if n := len(k.took); n == 0 || k.took[n-1].generation < generation {
		k.took = append(k.took, took{generation, reign, k.c.now})
	}
}

// watch leaves a node that is down, or that the client has enough of, and gives up what
// waits too long for a front.
func (k *client) watch() {
	k.c.after(watchInterval, k.watch)
	if k.name == "" {
		return
	}
	f := k.front
	switch {
	case f == nil && k.c.now >= k.asked+attachTimeout:
		k.attach()
	case f != nil && f.ended():
		k.leave()
	case f != nil && !k.stopped && k.rand.Float64() < float64(watchInterval)/float64(f.stay()):
		k.leave()
	}
	for _, q := range slices.Clone(k.queued) {
		if k.c.now >= q.gaveUp {
			k.queued = slices.DeleteFunc(k.queued, func(o *call) bool { return o == q })
			k.finish(q)
		}
	}
}

func (k *client) think() {
	mean := k.c.opt.think
	k.c.after(mean/4+time.Duration(k.rand.Int64N(int64(mean*3/2))), func() {
		if !k.stopped {
			k.issue(k.c.makeCall(k.rand))
		}
	})
}

func (k *client) issue(r record) {
	q := &call{record: r, gaveUp: k.c.now + 4*time.Second + time.Duration(k.rand.Int64N(int64(26*time.Second)))}
	q.call = k.c.now
	if k.front == nil {
		k.queued = append(k.queued, q)
		return
	}
	k.front.add(q)
}

// finish is a call's end, answered or not.
func (k *client) finish(q *call) {
	if q.final {
		return
	}
	q.final = true
	q.ret = k.c.now
	k.c.record(q.record)
	k.think()
}

// idle says whether nothing of the client's waits for an answer.
func (k *client) idle() bool {
	return len(k.queued) == 0 && (k.front == nil || len(k.front.calls) == 0)
}

// bytes is what a write writes.
func (q *call) bytes() []byte {
	if q.data == nil {
		q.data = fill(q.value, q.first, q.sectors)
	}
	return q.data
}

func (q *call) op() mirror.Op {
	return mirror.Op{Kind: q.kind, Off: q.first * sectorSize, Len: q.sectors * sectorSize, FUA: q.fua, NoHole: q.noHole}
}
