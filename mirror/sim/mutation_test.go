//go:build sabotage

package sim

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/mirror/internal/sabotage"
)

// mutations are the rules that can be broken, and within how many seeds that must
// be found out: some ten times as many as it takes on the average.
var mutations = []struct {
	name, is string
	seeds    uint64
}{
	{"fence", "a replica listens to a primary whose epoch is over", 200},
	{"shrink", "a write is acknowledged before the loss of a replica is recorded", 50},
	{"dirty bit", "a copy that was not acknowledged counts as done", 1000},
	{"flush", "a flush is acknowledged without a sync", 200},
	{"lease", "reads are served without a lease", 50},
	{"order", "writes that overlap are applied in any order", 100},
	{"twice", "what is sent again is applied again", 50},
	{"origins", "a new primary forgets what was applied", 200},
	{"early origins", "a replica is told of writes as applied before it has them", 500},
	{"dropped", "who was in sync with the old primary only is not made to agree", 600},
	{"better", "a copy that lost power is the truth for one that did not", 50},
	{"may leave", "a copy that lost power takes out one that did not", 400},
	{"reconcile", "a new primary does not make the others agree", 100},
	{"own sync", "a new primary says of a retry that it is durable, and did not sync its copy", 800},
	{"last flush", "a replica counts as whole before it is flushed", 800},
	{"intents", "what may differ after an unclean stop is not compared", 100},
	{"lossy", "a copy that lost power counts as whole", 1000},
	{"hold", "writes do not wait for a copy of the same place", 50},
	{"grace", "a replica takes over without waiting for the lease", 200},
	{"outsider", "a replica that is not in sync makes itself primary", 200},
	{"stale", "a proposal counts whatever epoch it follows", 200},
	{"again", "a command that is sent again is done again", 400},
	{"new leader", "a new leader of the group does not wait for what the one before promised", 200},
	{"kept", "a node that was handed the volume believes what it wrote down when it was primary before", 1500},
	{"generation", "what a client left behind at another node is still taken", 200},
	{"resend", "what was lost with a connection is not sent again", 100},
}

// ground is where to look for what happens too seldom elsewhere.
type ground struct {
	faults  weights
	options func(*options)
	fault   func(*fault)
}

// grounds are those of some mutations.
var grounds = map[string]ground{
	// A primary dies with a write that is durable nowhere yet; the next, alone, does so once
	// it has answered.
	"own sync": {
		faults:  weights{faultKill: 6, faultIsolate: 3, faultPower: 8, faultStall: 8},
		options: func(o *options) { o.members, o.durable = 2, false },
		fault: func(f *fault) {
			switch f.kind {
			case faultPower:
				f.a, f.ambush = thePrimary, ambushAck
			case faultKill, faultIsolate:
				f.a = thePrimary
			}
		},
	},
	// A member returns while another gets a full copy, for which many writes wait; then
	// the primary dies.
	"early origins": {
		faults: weights{faultFlap: 10, faultDisk: 4, faultStall: 4, faultKill: 6, faultPower: 2, faultPause: 3},
		options: func(o *options) {
			o.members, o.slots, o.lossTimeout, o.think = max(o.members, 3), 3, 750*time.Millisecond, o.think/2
		},
	},
	// Power fails soon after a configuration counts a copy.
	"last flush": {
		faults: weights{faultPower: 8, faultDisk: 4, faultFlap: 4, faultKill: 3},
		fault: func(f *fault) {
			if f.kind == faultPower && f.lasts < time.Second {
				f.ambush = ambushConf
			}
		},
	},
	"new leader": {faults: weights{faultSite: 1}},
}

// run is a seed's run on this ground.
func (g *ground) run(seed uint64, span time.Duration) Result {
	opt := drawOptions(source(seed, sourceOptions))
	if g.options != nil {
		g.options(&opt)
	}
	plan := drawPlan(source(seed, sourcePlan), span, opt.members, &g.faults)
	if g.fault != nil {
		for i := range plan {
			g.fault(&plan[i])
		}
	}
	return run(seed, span, opt, plan, nil)
}

// search runs seeds, some at a time, until one is wrong.
func search(seeds uint64, run func(seed uint64) Result) (found Result) {
	var (
		last    atomic.Uint64
		workers sync.WaitGroup
		mu      sync.Mutex
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := last.Add(1); seed <= seeds; seed = last.Add(1) {
				r := run(seed)
				if len(r.Wrong) == 0 {
					continue
				}
				last.Store(seeds) // nobody begins another
				mu.Lock()
				found = r
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return found
}

// TestMutations: each rule of the protocol is there for a reason, and the simulator
// notices when it is broken.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			sabotage.Break(m.name)
			defer sabotage.Break("")
			g, special := grounds[m.name]
			run := func(seed uint64) Result {
				if special {
					return g.run(seed, mutationSpan)
				}
				return Run(seed, mutationSpan, nil)
			}
			r := search(m.seeds, run)
			if len(r.Wrong) == 0 {
				t.Fatalf("%s, and nobody notices in %d seeds", m.is, m.seeds)
			}
			t.Logf("seed %d: %.160s", r.Seed, r.Wrong[0])
			sabotage.Break("")
			for _, wrong := range run(r.Seed).Wrong {
				t.Errorf("seed %d, with no rule broken: %s", r.Seed, wrong)
			}
		})
	}
}

// mutationSpan is the virtual time of a run.
const mutationSpan = 5 * time.Minute
