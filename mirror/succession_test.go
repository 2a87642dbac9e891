package mirror

import (
	"testing"
	"time"
)

func TestClaim(t *testing.T) {
	const (
		grace = time.Second
		heard = 2 * time.Second
		late  = heard + grace + 1
	)
	record := func(epoch uint64, primary, by ReplicaID, inSync ...ReplicaID) Record {
		return Record{Configuration: Configuration{Epoch: epoch, Primary: primary, InSync: SetOf(inSync...)}, By: by}
	}
	whole := Identity{Volume: volumeA, Epoch: 5, Complete: true}
	lossy := Identity{Volume: volumeA, Epoch: 5, Lossy: true}
	learner := Identity{Volume: volumeA, Epoch: 5}
	none := Configuration{}
	for name, c := range map[string]struct {
		id   Identity
		r    Record
		now  time.Duration
		want Configuration
	}{
		"its promise is over":            {whole, record(5, 1, 1, 0, 1), late, Configuration{6, 0, SetOf(0)}},
		"just not over":                  {whole, record(5, 1, 1, 0, 1), late - 1, none},
		"of three the others stay":       {whole, record(5, 1, 1, 0, 1, 2), late, Configuration{6, 0, SetOf(0, 2)}},
		"no full copy":                   {learner, record(5, 1, 1, 0, 1), time.Hour, none},
		"not in sync":                    {whole, record(5, 1, 1, 1, 2), time.Hour, none},
		"a configuration long over":      {whole, record(4, 1, 1, 0, 1), time.Hour, none},
		"a new volume":                   {Identity{}, record(0, 0, NoReplica, 0), heard, Configuration{1, 0, SetOf(0)}},
		"a new volume of another":        {Identity{}, record(0, 1, NoReplica, 0, 1), time.Hour, none},
		"handed over":                    {whole, record(5, 0, 1, 0, 1), heard, Configuration{6, 0, SetOf(0, 1)}},
		"handed over to a learner":       {learner, record(5, 0, 1, 0, 1), time.Hour, none},
		"by an operator, at once":        {whole, record(5, 0, NoReplica, 0), heard, none},
		"by an operator":                 {whole, record(5, 0, NoReplica, 0), late, Configuration{6, 0, SetOf(0)}},
		"it was the primary, just now":   {whole, record(5, 0, 0, 0, 1), heard, none},
		"it was the primary":             {whole, record(5, 0, 0, 0, 1), late, Configuration{6, 0, SetOf(0, 1)}},
		"it was, and lost power":         {lossy, record(5, 0, 0, 0, 1), heard, Configuration{6, 0, SetOf(0, 1)}},
		"lost power as a replica":        {lossy, record(5, 1, 1, 0, 1), time.Hour, none},
		"it was, and its disk was empty": {Identity{}, record(5, 0, 0, 0, 1), time.Hour, none},
	} {
		f := NewFollower(c.id, followerSize, false, heard)
		got, ok := f.Claim(c.r, 0, grace, c.now)
		if got != c.want || ok != (c.want != none) {
			t.Errorf("%s: %v %v, want %v", name, got, ok, c.want)
		}
	}
}

// TestClaimAfterPromise: a promise counts from the heartbeat that it answers.
func TestClaimAfterPromise(t *testing.T) {
	r := Record{Configuration: Configuration{Epoch: 5, Primary: 1, InSync: SetOf(0, 1)}, By: 1}
	f := NewFollower(Identity{Volume: volumeA, Epoch: 5, Complete: true}, followerSize, false, time.Second)
	admit(t, f, reignOne, 5)
	if err := f.Promise(time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Claim(r, 0, time.Second, time.Minute+time.Second); ok {
		t.Error("it claims within the grace of its promise")
	}
	if _, ok := f.Claim(r, 0, time.Second, time.Minute+time.Second+1); !ok {
		t.Error("it does not claim after the grace of its promise")
	}
}
