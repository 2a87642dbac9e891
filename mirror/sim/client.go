package sim

import (
	"errors"
	"math/rand/v2"
	"time"

	"lockstep/mirror"
)

// client uses the volume: it keeps a few requests in flight, and sends a write
// again, under the same origin, when it does not hear of it.
type client struct {
	c       *cluster
	place   place
	rand    *rand.Rand
	origin  uint64 // session
	number  uint64
	stopped bool

	node       mirror.ReplicaID // that it talks to, or tries to
	reign      uint64           // that it is connected to, 0 for none
	connecting int              // the attempt under way
	calls      []*call          // without a final answer, oldest first
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

// answer is what a node says to one attempt.
type answer struct {
	reign uint64 // 0: it is not primary
	err   error
	data  []byte
}

const (
	connectTimeout = 300 * time.Millisecond
	callTimeout    = 1500 * time.Millisecond
	watchInterval  = 250 * time.Millisecond
)

// begin starts the client's slots, each a closed loop.
func (k *client) begin(slots int) {
	k.connect()
	k.watch()
	for range slots {
		k.think()
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
	if q.kind == mirror.Write || q.kind == mirror.Zero {
		k.number++
		q.number = k.number
	}
	k.calls = append(k.calls, q)
	k.send(q)
}

// lowest is the lowest number that has no final answer.
func (k *client) lowest() uint64 {
	for _, q := range k.calls {
		if q.number != 0 {
			return q.number
		}
	}
	return k.number + 1
}

// connect finds the primary: it asks one node after another.
func (k *client) connect() {
	k.reign = 0
	k.connecting++
	try, node := k.connecting, k.node
	next := func() {
		if k.connecting == try && k.reign == 0 {
			k.node = (k.node + 1) % mirror.ReplicaID(k.c.opt.members)
			k.connect()
		}
	}
	k.c.after(connectTimeout, next)
	k.c.net.datagram(k.place, place(node), func() {
		n := k.c.nodes[node]
		var reign uint64
		if n.lead != nil {
			reign = n.lead.reign
		}
		k.c.net.datagram(n.place(), k.place, func() {
			if k.connecting == try && k.reign == 0 && reign != 0 {
				k.connected(reign)
			}
		})
	})
}

func (k *client) connected(reign uint64) {
	k.reign = reign
	for _, q := range k.calls {
		q.sent = false
	}
	for _, q := range append([]*call(nil), k.calls...) {
		if k.reign == reign && !q.sent {
			k.send(q)
		}
	}
}

// send makes one attempt.
func (k *client) send(q *call) {
	if k.reign == 0 {
		return // connected or watch will
	}
	q.attempt++
	q.sent, q.sentAt, q.tried = true, k.c.now, k.reign
	if q.attempt == 1 {
		q.asked = k.reign
	}
	attempt, reign, node := q.attempt, k.reign, k.node
	op := mirror.Op{Kind: q.kind, Off: q.first * sectorSize, Len: q.sectors * sectorSize, FUA: q.fua, NoHole: q.noHole}
	if q.number != 0 {
		op.Origin = &mirror.Origin{Session: k.origin, Number: q.number, Lowest: k.lowest(), Retry: attempt > 1}
	}
	k.c.net.datagram(k.place, place(node), func() {
		k.c.nodes[node].serve(k, q, reign, op, func(a answer) { k.answered(q, attempt, a) })
	})
}

// watch gives up calls that took too long, and sends again, over a new connection,
// what was not answered in time.
func (k *client) watch() {
	k.c.after(watchInterval, k.watch)
	for _, q := range append([]*call(nil), k.calls...) {
		switch {
		case k.c.now >= q.gaveUp:
			k.finish(q)
		case k.reign == 0:
		case !q.sent:
			k.send(q)
		case k.c.now >= q.sentAt+callTimeout:
			k.reconnect(k.reign)
		}
	}
}

// serve does a client's request; the answer goes back over the network.
func (n *node) serve(k *client, q *call, reign uint64, op mirror.Op, done func(answer)) {
	reply := func(a answer) {
		n.c.net.datagram(n.place(), k.place, func() { done(a) })
	}
	l := n.lead
	if l == nil || l.reign != reign {
		reply(answer{})
		return
	}
	own := op // an op is the machine's until it is complete
	switch op.Kind {
	case mirror.Read:
		own.Data = make([]byte, op.Len)
	case mirror.Write:
		own.Data = q.data
		if own.Data == nil {
			q.data = fill(q.value, q.first, q.sectors)
			own.Data = q.data
		}
	case mirror.Flush:
		own.Off, own.Len = 0, 0
	}
	l.submit(&own, func(op *mirror.Op) { reply(answer{reign: reign, err: op.Err, data: op.Data}) })
}

// answered takes an answer. An error leaves it open whether a write took effect,
// but for ErrForgotten, which says that it will not any more.
func (k *client) answered(q *call, attempt int, a answer) {
	switch {
	case q.final:
	case a.reign == 0:
		if attempt == q.attempt {
			q.sent = false
			k.reconnect(k.reign)
		}
	case a.err == nil:
		q.reign = a.reign
		q.acked = true
		if q.kind == mirror.Read {
			q.values = k.c.parse(q.first, a.data)
		}
		k.finish(q)
	case errors.Is(a.err, mirror.ErrForgotten):
		q.refused = true
		k.finish(q)
	case attempt == q.attempt:
		k.reconnect(a.reign)
	}
}

// reconnect leaves the connection to a reign, if it is still that one.
func (k *client) reconnect(reign uint64) {
	if reign == 0 || k.reign != reign {
		return
	}
	k.reign = 0
	k.connecting++
	try := k.connecting
	k.c.after(20*time.Millisecond+time.Duration(k.rand.Int64N(int64(100*time.Millisecond))), func() {
		if k.connecting == try {
			k.connect()
		}
	})
}

// finish is a call's end, answered or not.
func (k *client) finish(q *call) {
	q.final = true
	q.ret = k.c.now
	for i, o := range k.calls {
		if o == q {
			k.calls = append(k.calls[:i], k.calls[i+1:]...)
			break
		}
	}
	k.c.record(q.record)
	k.think()
}
