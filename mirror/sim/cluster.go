package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/wire"
)

// What every simulated volume has in common.
const (
	sectorSize = 512
	volumeSize = 8 << 20
	regionSize = 256 << 10
	blockSize  = 4 << 10

	leaseTime = 400 * time.Millisecond
	graceTime = 600 * time.Millisecond
)

// options are what one seed makes of a cluster.
type options struct {
	members, clients, slots int
	durable, suspend        bool
	lossTimeout             time.Duration
	think                   time.Duration // a client's slot, between two requests
	delay, jitter           time.Duration // of a link, one way
	loss                    float64       // of datagrams
	drift                   float64       // of clocks, at most
	flushes                 int           // of 100 requests
}

func drawOptions(r *rand.Rand) options {
	o := options{
		members: []int{2, 2, 3, 3, 3, 3, 3, 4}[r.IntN(8)],
		clients: 2 + r.IntN(3), slots: 1 + r.IntN(3),
		durable: r.IntN(4) == 0, suspend: r.IntN(8) == 0,
		lossTimeout: 150*time.Millisecond + time.Duration(r.Int64N(int64(600*time.Millisecond))),
		delay:       []time.Duration{100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond}[r.IntN(4)],
		loss:        []float64{0, 0.001, 0.02}[r.IntN(3)],
		drift:       1e-3,
		flushes:     []int{1, 4, 9}[r.IntN(3)],
	}
	o.jitter = time.Duration(float64(o.delay) * []float64{0.1, 0.5, 2}[r.IntN(3)])
	o.think = time.Duration(o.clients*o.slots) * time.Second / time.Duration(15+r.IntN(30))
	return o
}

func (o *options) machine(self mirror.ReplicaID) mirror.MachineConfig {
	conf := mirror.MachineConfig{
		Self: self, Durable: o.durable, Suspend: o.suspend, LossTimeout: o.lossTimeout,
		Lease: leaseTime, Size: volumeSize, Block: blockSize, Region: regionSize,
	}
	for id := range o.members {
		conf.Members = conf.Members.With(mirror.ReplicaID(id))
	}
	return conf
}

// cluster is one run.
type cluster struct {
	scheduler
	opt     options
	net     *network
	nodes   []*node
	group   *group
	witness *process
	clients []*client
	hist    *history
	volume  wire.ID
	numbers uint64
	out     io.Writer // of the trace; nil for none
	stats   Stats
	wrong   []string // violations

	ambushes []*fault // that wait for the next change of the configuration
	calm     bool     // no fault begins any more
}

// The random sources of a run, each of its own, so that a change of one thing
// leaves the rest of a seed as it was.
const (
	sourceOptions = iota
	sourcePlan
	sourceNetwork
	sourceOperator
	sourceNodes   = 100
	sourceClients = 200
)

func source(seed uint64, which int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(which)))
}

func newCluster(seed uint64, opt options, out io.Writer) *cluster {
	c := &cluster{opt: opt, out: out, hist: &history{owner: map[uint64]extent{}}}
	c.volume[0], c.volume[15] = 'v', 1
	places := opt.members + 1 + opt.clients + 1 // the last client reads when all is over
	c.net = newNetwork(c, places, source(seed, sourceNetwork))
	for i := range c.net.paths {
		for j := range c.net.paths[i] {
			c.net.paths[i][j] = path{delay: opt.delay, jitter: opt.jitter, loss: opt.loss}
		}
	}
	for id := range opt.members {
		n := &node{process: *c.newProcess(place(id), source(seed, sourceNodes+id)), id: mirror.ReplicaID(id)}
		n.idle = n.meetDoom
		n.newDisk()
		c.nodes = append(c.nodes, n)
	}
	c.witness = c.newProcess(place(opt.members), source(seed, sourceNodes+opt.members))
	c.group = newGroup(c, beginning(opt.members))
	for i, n := range c.nodes {
		n.voter = c.group.voters[i]
		n.voter.learned = n.learn
	}
	for i := range opt.clients + 1 {
		r := source(seed, sourceClients+i)
		k := &client{c: c, own: c.newProcess(c.witness.at+1+place(i), r), rand: r}
		k.own.begin()
		if i < opt.clients && r.IntN(2) == 0 {
			k.name = fmt.Sprint("client ", i)
		}
		c.clients = append(c.clients, k)
	}
	return c
}

// newProcess makes one that is down, with a clock of its own.
func (c *cluster) newProcess(at place, r *rand.Rand) *process {
	p := &process{c: c, at: at, rand: r}
	p.clock = clock{time.Duration(r.Int64N(int64(time.Hour))), c.opt.drift * (2*r.Float64() - 1)}
	return p
}

// unique returns a number that was not returned before.
func (c *cluster) unique() uint64 {
	c.numbers++
	return c.numbers
}

func (c *cluster) trace(who, format string, args ...any) {
	if c.out != nil {
		fmt.Fprintf(c.out, "%12.6f %-7s %s\n", c.now.Seconds(), who, fmt.Sprintf(format, args...))
	}
}

func (c *cluster) traceNode(id mirror.ReplicaID, format string, args ...any) {
	c.trace(fmt.Sprint("node ", int(id)), format, args...)
}

// violate notes that something happened that must not.
func (c *cluster) violate(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf("at %v: ", c.now)+fmt.Sprintf(format, args...))
	c.trace("WRONG", format, args...)
}

// Run simulates the cluster of a seed for a span of virtual time, with faults, and
// then for as long as it takes until all is in sync again. It writes a trace to
// out unless that is nil. The same seed and span give the same trace.
func Run(seed uint64, span time.Duration, out io.Writer) (r Result) {
	opt := drawOptions(source(seed, sourceOptions))
	return run(seed, span, opt, drawPlan(source(seed, sourcePlan), span, opt.members, &usual), out)
}

// run is Run with the cluster and the faults of a caller who is after something.
func run(seed uint64, span time.Duration, opt options, plan []fault, out io.Writer) (r Result) {
	c := newCluster(seed, opt, out)
	defer func() {
		if p := recover(); p != nil {
			c.violate("panic: %v\n%s", p, debug.Stack())
			r = c.result(seed, span)
		}
	}()
	c.trace("plan", "%+v", c.opt)
	for _, f := range plan {
		c.trace("plan", "%v", &f)
		c.at(f.at, func() { f.arm(c) })
	}
	c.startAll()
	for _, k := range c.clients[:c.opt.clients] {
		k.begin(c.opt.slots)
	}
	c.operate()
	c.manage(source(seed, sourceOperator))
	c.advance(span)
	c.settle()
	c.conclude()
	return c.result(seed, span)
}

func (c *cluster) startAll() {
	c.startWitness()
	for _, n := range c.nodes {
		n.start()
	}
}

func (c *cluster) startWitness() {
	if !c.witness.up {
		c.witness.begin()
		c.group.voters[c.witness.at].start()
	}
}

// advance lets virtual time pass, until something is wrong.
func (c *cluster) advance(until time.Duration) {
	for c.now < until && len(c.wrong) == 0 {
		c.runUntil(min(until, c.now+100*time.Millisecond))
	}
}
