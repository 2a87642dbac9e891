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
	says := func(serving, ready bool, standings ...string) *mirror.Status {
		s := &mirror.Status{Serving: serving, Ready: ready}
		for i, standing := range standings {
			r := mirror.ReplicaStatus{Member: i + 1, Standing: strings.TrimSuffix(standing, "!"), InSync: strings.HasSuffix(standing, "!")}
			s.Replicas = append(s.Replicas, r)
		}
		return s
	}
	failed := says(true, true, "lost!")
	failed.Failed = "it says what to do"
	suspend := control.Policy{OnLoss: "suspend"}
	for name, tc := range map[string]struct {
		inSync   string // nodes with copies in sync, of a, b and c
		policy   control.Policy
		standing *mirror.Status // what a, the primary, says of b and c; ! is in sync
		want     string
	}{
		"all is well":                 {inSync: "abc", standing: says(true, true, "in sync!", "in sync!")},
		"b is brought up to date":     {inSync: "ac", standing: says(true, true, "learner", "in sync!")},
		"b is away":                   {inSync: "ac", standing: says(true, true, "absent", "in sync!"), want: "see to node b: what is missing there is copied by itself; a node that is gone for good is replaced: lockstep volume replica replace vol b --by NODE"},
		"b and c are":                 {inSync: "a", standing: says(true, true, "absent", "absent"), want: "see to node b and c: what is missing there is copied by itself; a node that is gone for good is replaced: lockstep volume replica replace vol b --by NODE"},
		"writes wait for c, b is out": {inSync: "ac", policy: suspend, standing: says(true, false, "absent", "lost!"), want: "see to node c: writes wait for it; or let them go on with one copy less, until it is set back: lockstep volume policy vol --on-loss continue"},
		"c is just lost":              {inSync: "ac", standing: says(true, false, "absent", "lost!")},
		"a waits for b to begin":      {inSync: "abc", policy: suspend, standing: says(false, false, "lost!", "reconciling!"), want: "see to node b: nothing is served before every copy that was in sync has said what it has"},
		"one copy":                    {inSync: "a", standing: says(true, true), want: "give another node a copy: lockstep volume replica add vol NODE"},
		"its disk failed":             {inSync: "abc", standing: failed},
		"b takes over":                {inSync: "ab", policy: control.Policy{Failover: "auto"}, want: "wait for b to take over; if it does not within seconds, see to the nodes that are down: it takes a majority of the voters"},
		"b waits for an operator":     {inSync: "ab", policy: control.Policy{Failover: "manual"}, want: "see to node a, and to the way to it; or let b take over, which loses nothing: lockstep failover vol --to b"},
		// It is not for a list to say which of two old copies is less old.
		"b and c lack something": {inSync: "a", want: "see to node a, and to the way to it: the only copy in sync is there; what could be done if that is gone for good, and what it costs: lockstep failover --help"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &api.VolumeStatus{Standing: tc.standing, Volume: &control.Volume{Name: "vol", Primary: "a", Policy: tc.policy}}
			for _, node := range []string{"a", "b", "c"} {
				v.Replicas = append(v.Replicas, control.Replica{Node: node, InSync: strings.Contains(tc.inSync, node)})
			}
			if got := advice(v); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
