package main

import (
	"strings"
	"testing"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
	"lockstep/mirror/control"
)

// TestAdvice: what a person is told to do depends on which copies are in sync and who
// answers; what mends itself gets no advice.
func TestAdvice(t *testing.T) {
	b := func(standing string) []mirror.ReplicaStatus {
		return []mirror.ReplicaStatus{{Member: 1, Standing: standing}}
	}
	for name, tc := range map[string]struct {
		inSync   [2]bool // a's copy, b's
		policy   control.Policy
		standing *mirror.Status // what a, the primary, says
		want     string         // begins so
	}{
		"all is well":             {inSync: [2]bool{true, true}, standing: &mirror.Status{Serving: true, Ready: true, Replicas: b("in sync")}},
		"b is brought up to date": {inSync: [2]bool{true, false}, standing: &mirror.Status{Serving: true, Ready: true, Replicas: b("learner")}},
		"b is away":               {inSync: [2]bool{true, false}, standing: &mirror.Status{Serving: true, Ready: true, Replicas: b("absent")}, want: "start node b: what it lacks is copied by itself; if it is gone for good: lockstep volume replica replace vol b --by NODE"},
		"writes wait for b":       {inSync: [2]bool{true, true}, policy: control.Policy{OnLoss: "suspend"}, standing: &mirror.Status{Serving: true, Replicas: b("lost")}, want: "start node b: what it lacks is copied by itself; or let writes go on without it: lockstep volume policy vol --on-loss continue"},
		"one copy":                {inSync: [2]bool{true, false}, standing: &mirror.Status{Serving: true, Ready: true}, want: "give another node a copy: lockstep volume replica add vol NODE"},
		"its disk failed":         {inSync: [2]bool{true, true}, standing: &mirror.Status{Serving: true, Failed: "it says what to do", Replicas: b("lost")}},
		"b takes over":            {inSync: [2]bool{true, true}, policy: control.Policy{Failover: "auto"}, want: "if b does not take over within seconds, start"},
		"b waits for an operator": {inSync: [2]bool{true, true}, policy: control.Policy{Failover: "manual"}, want: "start node a; or let b take over, which loses nothing: lockstep failover vol --to b"},
		"b lacks something":       {inSync: [2]bool{true, false}, want: "start node a: the only copy in sync is there; if it is gone for good, this says what would be lost: lockstep failover vol --to b"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &api.VolumeStatus{Standing: tc.standing, Volume: &control.Volume{Name: "vol", Primary: "a", Policy: tc.policy,
				Replicas: []control.Replica{{Node: "a", InSync: tc.inSync[0]}, {Node: "b", InSync: tc.inSync[1]}}}}
			if got := advice(v); !strings.HasPrefix(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
