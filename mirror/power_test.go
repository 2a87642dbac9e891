package mirror

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
)

// machineroom is one site's machine: its disk, and how often it was started.
type machineroom struct {
	t    *testing.T
	disk *memfs.FS
	boot byte
}

func newMachineroom(t *testing.T, seed uint64) *machineroom {
	return &machineroom{t: t, disk: memfs.New(seed), boot: 1}
}

func (m *machineroom) open() *store.Store {
	m.t.Helper()
	s, err := store.Open(store.Options{Path: "/vol", Size: testSize, FS: m.disk, Region: 64 << 10,
		BootID: func() ([16]byte, error) { return [16]byte{m.boot}, nil }})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { s.Close() })
	return s
}

// power goes off and on: none of what was not synced is left.
func (m *machineroom) power() *store.Store {
	m.disk.Crash(0)
	m.boot++
	return m.open()
}

func TestReplicaThatLostPowerIsMadeEqual(t *testing.T) {
	local, far := newStore(t, testSize), newMachineroom(t, 1)
	r := newSite(t, far.open())
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	c.scatter(1)
	if err := c.v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.write(100<<10, bytes.Repeat([]byte{2}, 8192)) // acknowledged from its page cache
	r.kill()
	c.suspended()
	back := far.power()
	if !back.Meta().Lossy || back.Meta().Complete {
		t.Fatalf("after a power loss: %+v", back.Meta())
	}
	r.store = back
	r.start()
	c.inSync()
	wantEqual(t, local, back)
	if s := c.v.Status().Replicas[0]; s.Copied > 256<<10 {
		t.Errorf("%d bytes copied for 8192 that were lost", s.Copied)
	}
}

// The primary's machine lost power and the replica's did not: the replica has every
// acknowledged write, so this copy must not become the truth.
func TestPrimaryThatLostPowerIsNotTheTruth(t *testing.T) {
	near, remote := newMachineroom(t, 2), newStore(t, testSize)
	r := newSite(t, remote)
	c := open(t, Config{Store: near.open(), Replicas: []string{r.addr}}).inSync()
	c.write(0, []byte("acknowledged"))
	c.v.Close()
	again := open(t, Config{Store: near.power(), Replicas: []string{r.addr}})
	if err := again.v.Wait(t.Context()); !errors.Is(err, ErrBetterCopy) {
		t.Errorf("%v, want ErrBetterCopy", err)
	}
	again.v.Close()
	if got := contents(t, remote)[:12]; string(got) != "acknowledged" {
		t.Errorf("the replica's copy was overwritten: %q", got)
	}
	r.kill()
	// The better copy is served instead, and the other one follows it.
	far := newSite(t, again.v.conf.Store)
	c = open(t, Config{Store: remote, Replicas: []string{far.addr}}).inSync()
	if got := c.read(0, 12); string(got) != "acknowledged" {
		t.Errorf("read %q", got)
	}
	wantEqual(t, remote, again.v.conf.Store)
}

func TestAllLostPower(t *testing.T) {
	near, far := newMachineroom(t, 3), newMachineroom(t, 4)
	r := newSite(t, far.open())
	c := open(t, Config{Store: near.open(), Replicas: []string{r.addr}}).inSync()
	c.write(testSize-4096, []byte("flushed"))
	if err := c.v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.scatter(9) // which each may have lost
	c.v.Close()
	r.kill()
	local, remote := near.power(), far.power()
	r.store = remote
	r.start()
	c = open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	if got := c.read(testSize-4096, 7); string(got) != "flushed" {
		t.Errorf("read %q", got)
	}
	wantEqual(t, local, remote)
	if !local.Meta().Complete || !remote.Meta().Complete {
		t.Error("in sync, and a copy does not call itself a full one")
	}
}

// A copy that was being brought up to date when it became the only one lacks
// anything: it is served only on somebody's word.
func TestALearnerIsNotServed(t *testing.T) {
	s := memStore(t)
	if err := s.Update(func(m *store.Meta) { m.Volume, m.Why = [16]byte{1}, whyLearner }); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Store: s}); err == nil || !strings.Contains(err.Error(), "--accept-data-loss") {
		t.Errorf("%v, want a refusal that says how", err)
	}
	v, err := Open(Config{Store: s, AcceptDataLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
}
