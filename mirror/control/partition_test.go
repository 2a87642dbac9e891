package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// claim is what one node saw of a proposal, with when it asked and when it knew.
type claim struct {
	epoch         uint64
	by            string
	won           bool
	asked, knew   time.Time
	inForce       uint64 // the epoch that the answer shows
	inForceLeader string
}

// TestProposalsUnderFaults has nodes compete for three volumes while links are cut in
// one direction or both and nodes die and return. Every epoch has one winner, an answer
// never shows an older epoch than one that was known before it was asked for, and when
// all is well again everybody knows the same.
func TestProposalsUnderFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := []string{"a", "b", "c", "d", "w"}
				if seed%2 == 0 {
					names = []string{"a", "b", "w"}
				}
				c := newCluster(t, time.Millisecond/2, names...)
				if seed%3 == 0 {
					for _, name := range names {
						c.net.distance(name, "w", 50*time.Millisecond)
					}
				}
				c.leader()
				volumes := []string{"x", "y", "z"}
				for _, v := range volumes {
					c.settle(c.do("a", volumeOn(v, "a", "b")))
				}
				claims := c.compete(rand.New(rand.NewPCG(seed, 7)), names, volumes)
				for _, v := range volumes {
					check(t, v, claims[v])
				}
			})
		})
	}
}

// compete lets faults and proposals loose for a while.
func (c *cluster) compete(r *rand.Rand, names, volumes []string) map[string][]claim {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		claims = map[string][]claim{}
		live   sync.Map // *Control by name: a mutex that waits would stop virtual time
	)
	for name := range c.running() {
		live.Store(name, c.nodes[name].Control)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for _, by := range []string{"a", "b"} {
		for _, v := range volumes {
			wg.Go(func() {
				for epoch := uint64(1); ctx.Err() == nil; {
					node, ok := live.Load(by)
					if !ok {
						sleep(ctx, 50*time.Millisecond)
						continue
					}
					asked := time.Now()
					one, stop := context.WithTimeout(ctx, 5*time.Second)
					result, err := node.(*Control).Do(one, Propose(v, epoch, by, by, []int{0, 1}, nil))
					stop()
					if err != nil {
						if errors.As(err, new(*Refused)) {
							c.t.Errorf("%s refused: %v", by, err)
						}
						sleep(ctx, 10*time.Millisecond)
						continue
					}
					mu.Lock()
					claims[v] = append(claims[v], claim{epoch: epoch, by: by, won: result.Won, asked: asked, knew: time.Now(),
						inForce: result.Volume.Epoch, inForceLeader: result.Volume.Primary})
					mu.Unlock()
					epoch = result.Volume.Epoch + 1
					sleep(ctx, 150*time.Millisecond)
				}
			})
		}
	}
	for range 12 {
		c.fault(r, names, &live)
	}
	c.net.heal()
	begin := time.Now()
	c.leader()
	if took := time.Since(begin); took > 5*time.Second {
		c.t.Errorf("no leader until %v after all was well again", took)
	}
	time.Sleep(2 * time.Second)
	cancel()
	wg.Wait()
	last := c.do("a", Promote("a"))
	c.settle(last)
	for _, name := range names {
		for _, v := range volumes {
			if !c.nodes[name].State().Volumes[v].Equal(c.nodes["a"].State().Volumes[v]) {
				c.t.Errorf("%s and a do not agree on %s", name, v)
			}
		}
	}
	return claims
}

// fault breaks something, for a while.
func (c *cluster) fault(r *rand.Rand, names []string, live *sync.Map) {
	pick := func() string { return names[r.IntN(len(names))] }
	victim := pick()
	switch kind := r.IntN(5); kind {
	case 0:
		c.net.isolate(victim, names...)
	case 1: // it hears nobody
		for _, other := range names {
			c.net.block(other, victim)
		}
	case 2: // nobody hears it
		for _, other := range names {
			c.net.block(victim, other)
		}
	case 3:
		c.net.block(victim, pick())
	case 4:
		live.Delete(victim)
		c.stop(victim)
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		live.Store(victim, c.start(victim).Control)
	}
	time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
	if r.IntN(3) > 0 {
		c.net.heal()
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
	}
}

func check(t *testing.T, volume string, claims []claim) {
	t.Helper()
	winner := map[uint64]string{}
	won := 0
	for _, k := range claims {
		if !k.won {
			continue
		}
		won++
		if other, known := winner[k.epoch]; known {
			t.Errorf("%s: epoch %d was won by %s and by %s", volume, k.epoch, other, k.by)
		}
		winner[k.epoch] = k.by
	}
	asked, knew := slices.Clone(claims), slices.Clone(claims)
	slices.SortFunc(asked, func(a, b claim) int { return a.asked.Compare(b.asked) })
	slices.SortFunc(knew, func(a, b claim) int { return a.knew.Compare(b.knew) })
	known, next := uint64(0), 0 // the newest epoch that somebody knew before
	for _, k := range asked {
		for ; knew[next].knew.Before(k.asked); next++ {
			known = max(known, knew[next].inForce)
		}
		if k.inForce < known {
			t.Errorf("%s: epoch %d was known, and a later answer showed %d", volume, known, k.inForce)
		}
		if w, known := winner[k.inForce]; known && w != k.inForceLeader {
			t.Errorf("%s: epoch %d was won by %s and shown as %s's", volume, k.inForce, w, k.inForceLeader)
		}
	}
	if won < 20 {
		t.Errorf("%s: only %d proposals won: the test says little", volume, won)
	}
}
