package control

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestDiskRemembers runs the group on real directories, through snapshots, and has all
// of it die and return.
func TestDiskRemembers(t *testing.T) {
	names := []string{"a", "b", "w"}
	dirs := map[string]string{}
	for _, name := range names {
		dirs[name] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2)
		for _, name := range names {
			c.peers = append(c.peers, Peer{Name: name, Addr: name + ":1", Witness: name == "w"})
		}
		boot := func(name string) {
			stores, err := openStores(dirs[name], slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			c.nodes[name] = &member{name: name, stores: stores}
			c.start(name)
		}
		for _, name := range names {
			boot(name)
		}
		c.leader()
		c.do("a", volumeOn("v", "a", "b"))
		identity := c.nodes["b"].id
		generation := uint64(0)
		for round := range 3 {
			for range 5 {
				r := c.do("b", Attach("v", "vm"))
				if generation++; r.Generation != generation {
					t.Fatalf("round %d: generation %d, not %d", round, r.Generation, generation)
				}
			}
			if err := c.nodes["b"].raft.Load().Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				c.stop(name)
			}
			for _, name := range names {
				boot(name)
			}
			c.leader()
		}
		if got := c.nodes["b"].id; got != identity {
			t.Errorf("b is %q now, and was %q", got, identity)
		}
		c.settle(c.do("w", Attach("v", "vm")))
		if v := c.nodes["b"].State().Volumes["v"]; v.Clients["vm"] != generation+1 {
			t.Errorf("b has %+v", v)
		}
	})
}
