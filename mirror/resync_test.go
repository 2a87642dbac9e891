package mirror

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// degradable is a volume that goes on without its replica.
func degradable(t *testing.T, local Store, r *site) *client {
	return open(t, Config{Store: local, Replicas: []string{r.addr}, Continue: true, LossTimeout: time.Millisecond})
}

func (c *client) alone() *client {
	c.t.Helper()
	return c.until("alone", func() bool { return !c.v.Status().Replicas[0].InSync && c.v.Status().Ready })
}

func (c *client) copied() int64 { return c.v.Status().Replicas[0].Copied }

// scatter writes 4 KiB at every 64 KiB.
func (c *client) scatter(with byte) (written int64) {
	for off := int64(0); off < testSize; off += 64 << 10 {
		c.write(off, bytes.Repeat([]byte{with}, blockSize))
		written += blockSize
	}
	return written
}

func TestResyncMovesWhatWasMissed(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, remote)
	c := degradable(t, local, r).inSync()
	c.scatter(1)
	r.kill()
	c.alone()
	missed := c.scatter(2)
	r.start()
	c.everywhere()
	if got := c.copied(); got != missed {
		t.Errorf("resync moved %d bytes, %d were missed", got, missed)
	}
	wantEqual(t, local, remote)
}

// What a replica lacks outlives the primary: exactly if it was settled, and in
// regions to be compared if it was not.
func TestResyncGoesOnAfterARestart(t *testing.T) {
	for name, settle := range map[string]bool{"stopped": true, "killed": false} {
		t.Run(name, func(t *testing.T) {
			local, remote := newStore(t, testSize), newStore(t, testSize)
			r := newSite(t, remote)
			c := degradable(t, local, r).inSync()
			c.scatter(1)
			r.kill()
			c.alone()
			missed := c.scatter(2)
			if settle {
				if err := c.v.Settle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c.v.Close()
			c = degradable(t, local, r).alone()
			missed += c.scatter(3) - missed // the same blocks again
			r.start()
			c.everywhere()
			// What is found by comparing is copied with what is beside it.
			if got := c.copied(); got < missed || settle && got > missed || got > 2*missed {
				t.Errorf("resync moved %d bytes, %d were missed", got, missed)
			}
			wantEqual(t, local, remote)
		})
	}
}

func TestResyncUnderLoadBreaksOffAndGoesOn(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, remote)
	c := degradable(t, local, r).inSync()
	var stop atomic.Bool
	wg := c.load(4, &stop)
	for range 10 {
		r.kill()
		c.alone()
		r.start()
		c.until("connected", func() bool { return c.v.Status().Replicas[0].Standing != "absent" })
	}
	c.everywhere()
	stop.Store(true)
	wg.Wait()
	wantEqual(t, local, remote)
}

// Two replicas are brought up to date at once, from different states.
func TestTwoLearnersAtOnce(t *testing.T) {
	local, a, b := newStore(t, testSize), newStore(t, testSize), newStore(t, testSize)
	first, second := newSite(t, a), newSite(t, b)
	c := open(t, Config{Store: local, Replicas: []string{first.addr, second.addr}, Continue: true, LossTimeout: time.Millisecond}).inSync()
	first.kill()
	c.until("without the first", func() bool { return !c.v.Status().Replicas[0].InSync })
	c.scatter(1)
	second.kill()
	c.until("alone", func() bool { return !c.v.Status().Replicas[1].InSync })
	c.scatter(2)
	second.store = newStore(t, testSize)
	first.start()
	second.start()
	c.everywhere()
	wantEqual(t, local, a, second.store)
}

func TestVerifyFindsAndRepairs(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	c := open(t, Config{Store: local, Replicas: []string{newSite(t, remote).addr}}).inSync()
	c.scatter(7)
	if err := remote.WriteAt([]byte("rotten"), 192<<10); err != nil { // behind the back of both
		t.Fatal(err)
	}
	if err := remote.WriteAt([]byte("rotten, where nothing was written"), 3<<20+5000); err != nil {
		t.Fatal(err)
	}
	verify := func(repair bool) []Difference {
		t.Helper()
		r, err := c.v.Verify(t.Context(), repair, nil)
		if err != nil || r.Checked != testSize {
			t.Fatalf("verify: %+v, %v", r, err)
		}
		return r.Differs
	}
	for _, repair := range []bool{false, true} {
		got := verify(repair)
		if len(got) != 2 || !holds(got[0], 192<<10) || !holds(got[1], 3<<20+5000) || got[0].Repaired != repair {
			t.Errorf("repair %v: found %+v", repair, got)
		}
	}
	if got := verify(false); len(got) != 0 {
		t.Errorf("after the repair: %+v", got)
	}
	wantEqual(t, local, remote)
}

// holds says whether a difference is the one at off, and no longer than a digest's block.
func holds(d Difference, off int64) bool {
	return d.Off <= off && off < d.Off+d.Len && d.Len <= digestBlock
}

// Writes in flight are no differences.
func TestVerifyUnderLoad(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	c := open(t, Config{Store: local, Replicas: []string{newSite(t, remote).addr}}).inSync()
	var stop atomic.Bool
	wg := c.load(4, &stop)
	for range 5 {
		r, err := c.v.Verify(t.Context(), true, nil)
		if err != nil || len(r.Differs) > 0 {
			t.Errorf("verify under load: %+v, %v", r.Differs, err)
		}
	}
	stop.Store(true)
	wg.Wait()
	wantEqual(t, local, remote)
}

func TestVerifyEndsWithTheReplica(t *testing.T) {
	r := newSite(t, newStore(t, testSize))
	c := open(t, Config{Store: newStore(t, testSize), Replicas: []string{r.addr}}).inSync()
	r.kill()
	c.suspended()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.v.Verify(ctx, false, nil); err == nil || ctx.Err() != nil {
		t.Errorf("verify of a lost replica: %v", err)
	}
}
