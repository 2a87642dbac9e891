package sim

import (
	"errors"
	"slices"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/internal/sabotage"
)

// front is a client's session: it sends each request to whoever is primary, and a write
// again, under the same origin, when it does not hear of it. It runs in a process and
// ends with that, not with its client: a node that was cut off sends what it has when
// it is back.
type front struct {
	k          *client
	p          *process
	life       int // of the process
	origin     uint64
	generation uint64
	over       bool // it was told that a later generation is there

	incarnation uint64 // of the volume, plus 1; 0: not known yet
	number      uint64
	node        mirror.ReplicaID // that it talks to, or tries to
	reign       uint64           // that it is connected to, 0 for none
	connecting  int              // the attempt under way
	calls       []*call          // without a final answer, oldest first
}

// answer is what a node says to one attempt.
type answer struct {
	reign uint64 // 0: it is not primary
	old   bool   // it knows a later generation
	err   error
	data  []byte
}

const (
	connectTimeout = 300 * time.Millisecond
	callTimeout    = 1500 * time.Millisecond
)

func newFront(k *client, at *process, generation uint64) *front {
	f := &front{k: k, p: at, life: at.life, origin: k.c.unique(), generation: generation}
	f.connect()
	f.watch()
	return f
}

func (f *front) ended() bool { return f.over || f.p.life != f.life }

func (f *front) after(d time.Duration, do func()) {
	f.p.after(d, func() {
		if !f.over {
			do()
		}
	})
}

// stay is how long its client stays with it on the average.
func (f *front) stay() time.Duration {
	if len(f.calls) > 0 && f.k.c.now > f.calls[0].call+impatientAfter {
		return meanStayAmid
	}
	return meanStay
}

// ask has a node do something in this process's name, which gets its answer.
func (f *front) ask(id mirror.ReplicaID, do func(n *node, reply func(func()))) {
	n := f.k.c.nodes[id]
	f.k.c.net.datagram(f.p.at, n.at, func() {
		do(n, func(then func()) {
			f.k.c.net.datagram(n.at, f.p.at, func() {
				if !f.ended() {
					then()
				}
			})
		})
	})
}

func (f *front) add(q *call) {
	if q.kind == mirror.Write || q.kind == mirror.Zero {
		f.number++
		q.number = f.number
	}
	f.calls = append(f.calls, q)
	f.send(q)
}

// lowest is the lowest number that has no final answer.
func (f *front) lowest() uint64 {
	for _, q := range f.calls {
		if q.number != 0 {
			return q.number
		}
	}
	return f.number + 1
}

// connect finds the primary: it asks one node after another.
func (f *front) connect() {
	f.reign = 0
	f.connecting++
	try := f.connecting
	f.after(connectTimeout, func() {
		if f.connecting == try && f.reign == 0 {
			f.node = (f.node + 1) % mirror.ReplicaID(f.k.c.opt.members)
			f.connect()
		}
	})
	f.ask(f.node, func(n *node, reply func(func())) {
		l := n.lead
		switch {
		case l == nil:
		case n.refuses(f):
			reply(f.end)
		default:
			l.saw(f)
			reign, incarnation := l.reign, l.incarnation+1
			reply(func() {
				if f.connecting == try && f.reign == 0 && incarnation >= f.incarnation {
					f.connected(reign, incarnation)
				}
			})
		}
	})
}

// connected sends what has no answer. If the volume may have forgotten what it
// acknowledged, nothing is sent again, and the session is over.
func (f *front) connected(reign, incarnation uint64) {
	if f.incarnation != 0 && f.incarnation != incarnation {
		f.number, f.origin = 0, f.k.c.unique()
		for _, q := range slices.Clone(f.calls) {
			f.finish(q)
		}
	}
	f.reign, f.incarnation = reign, incarnation
	for _, q := range f.calls {
		q.sent = false
	}
	for _, q := range slices.Clone(f.calls) {
		if f.reign == reign && !q.sent {
			f.send(q)
		}
	}
}

// send makes one attempt.
func (f *front) send(q *call) {
	if f.reign == 0 {
		return // connected or watch will
	}
	q.attempt++
	q.sent, q.sentAt, q.tried = true, f.k.c.now, f.reign
	if q.attempt == 1 {
		q.asked = f.reign
	}
	attempt, reign, op := q.attempt, f.reign, q.op()
	if q.number != 0 {
		op.Origin = &mirror.Origin{Session: f.origin, Number: q.number, Lowest: f.lowest(), Retry: attempt > 1}
	}
	f.ask(f.node, func(n *node, reply func(func())) {
		n.serve(f, q, reign, op, func(a answer) {
			reply(func() { f.answered(q, attempt, a) })
		})
	})
}

// watch gives up calls that took too long, and sends again, over a new connection,
// what was not answered in time.
func (f *front) watch() {
	f.after(watchInterval, f.watch)
	for _, q := range slices.Clone(f.calls) {
		switch {
		case f.k.c.now >= q.gaveUp:
			f.finish(q)
		case f.reign == 0:
		case !q.sent:
			f.send(q)
		case f.k.c.now >= q.sentAt+callTimeout:
			f.reconnect(f.reign)
		}
	}
}

// refuses says whether a later generation of a front's client is known here, or was
// seen here.
func (n *node) refuses(f *front) bool {
	known := n.known().Clients[f.k.name]
	return max(known, n.lead.seen[f.k.name]) > f.generation && !sabotage.On("generation")
}

// saw notes which generation is there.
func (l *lead) saw(f *front) {
	if f.k.name != "" {
		l.seen[f.k.name] = max(l.seen[f.k.name], f.generation)
	}
}

// serve does a request of a front's.
func (n *node) serve(f *front, q *call, reign uint64, op mirror.Op, reply func(answer)) {
	l := n.lead
	switch {
	case l == nil || l.reign != reign:
		reply(answer{})
		return
	case n.refuses(f):
		reply(answer{old: true})
		return
	}
	own := op // an op is the machine's until it is complete
	switch op.Kind {
	case mirror.Read:
		own.Data = make([]byte, op.Len)
	case mirror.Write:
		own.Data = q.bytes()
	case mirror.Flush:
		own.Off, own.Len = 0, 0
	}
	l.submit(&own, func(op *mirror.Op) { reply(answer{reign: reign, err: op.Err, data: op.Data}) })
}

// answered takes an answer. An error leaves it open whether a write took effect,
// but for ErrForgotten, which says that it will not any more.
func (f *front) answered(q *call, attempt int, a answer) {
	switch {
	case a.old:
		f.end()
	case !slices.Contains(f.calls, q):
	case a.reign == 0:
		if attempt == q.attempt {
			q.sent = false
			f.reconnect(f.reign)
		}
	case a.err == nil:
		f.take(q, a)
	case errors.Is(a.err, mirror.ErrForgotten):
		q.refused = true
		f.finish(q)
	case attempt == q.attempt:
		f.reconnect(a.reign)
	}
}

// take takes an answer that is none but success.
func (f *front) take(q *call, a answer) {
	if !q.final {
		q.reign, q.acked = a.reign, true
		f.k.acknowledged(f.generation, a.reign)
		if q.kind == mirror.Read {
			q.values = f.k.c.parse(q.first, a.data)
		}
	}
	f.finish(q)
}

// end is the session's, because a later generation is there.
func (f *front) end() { f.over = true }

// reconnect leaves the connection to a reign, if it is still that one.
func (f *front) reconnect(reign uint64) {
	if reign == 0 || f.reign != reign {
		return
	}
	f.reign = 0
	f.connecting++
	try := f.connecting
	f.after(20*time.Millisecond+time.Duration(f.k.rand.Int64N(int64(100*time.Millisecond))), func() {
		if f.connecting == try {
			f.connect()
		}
	})
}

// finish is the end of a call, answered or not.
func (f *front) finish(q *call) {
	f.calls = slices.DeleteFunc(f.calls, func(o *call) bool { return o == q })
	f.k.finish(q)
}
