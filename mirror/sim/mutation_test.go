//go:build sabotage

package sim

import (
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
	{"new leader", "a new leader of the group does not wait for what the one before promised", 1500},
	{"kept", "a node that was handed the volume believes what it wrote down when it was primary before", 1500},
	{"generation", "what a client left behind at another node is still taken", 200},
	{"resend", "what was lost with a connection is not sent again", 100},
}

// TestMutations: each rule of the protocol is there for a reason, and the simulator
// notices when it is broken.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			sabotage.Break(m.name)
			defer sabotage.Break("")
			for seed := uint64(1); seed <= m.seeds; seed++ {
				if r := Run(seed, 5*time.Minute, nil); len(r.Wrong) > 0 {
					t.Logf("seed %d: %.160s", seed, r.Wrong[0])
					return
				}
			}
			t.Errorf("%s, and nobody notices in %d seeds", m.is, m.seeds)
		})
	}
}
