package store

import (
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"lockstep/mirror/store/memfs"
)

// Of many who come while the file is synced, all share the next sync.
func TestGroupCommit(t *testing.T) {
	const callers = 50
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), memSize-SectorSize)) // it is not new any more
	reached, release := stall(disk, "sync", "intents")
	syncs := 0
	inner := disk.Stall
	disk.Stall = func(op, name string) {
		if op == "sync" && filepath.Base(name) == "intents" {
			syncs++ // s.intents.io is held
		}
		inner(op, name)
	}
	var all sync.WaitGroup
	prepare := func(i int64) {
		if err := s.Prepare(i*memRegion, 1); err != nil {
			t.Error(err)
		}
	}
	all.Go(func() { prepare(0) })
	<-reached
	for i := range int64(callers) {
		all.Go(func() { prepare(1 + i%10) })
	}
	for joined := 0; joined < callers; runtime.Gosched() {
		s.intents.mu.Lock()
		if s.intents.next != nil {
			joined = len(s.intents.next.regions)
		}
		s.intents.mu.Unlock()
	}
	close(release)
	all.Wait()
	if syncs != 2 {
		t.Errorf("%d syncs for two groups", syncs)
	}
	if !s.Ready(0, 11*memRegion) {
		t.Error("not all are ready")
	}
}

// Who waits behind a sync that fails must not be told by the next one that all is well.
func TestGroupBehindAFailedSync(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), memSize-SectorSize))
	reached, release := stall(disk, "sync", "intents")
	disk.FailSync(1)
	done := make(chan error, 2)
	prepare := func(off int64) { done <- s.Prepare(off, 1) }
	go prepare(0)
	<-reached
	go prepare(memRegion)
	for joined := false; !joined; runtime.Gosched() {
		s.intents.mu.Lock()
		joined = s.intents.next != nil
		s.intents.mu.Unlock()
	}
	close(release)
	for range 2 {
		if err := <-done; !errors.Is(err, ErrBroken) {
			t.Errorf("%v, want ErrBroken", err)
		}
	}
	if s.Ready(0, 1) || s.Ready(memRegion, 1) {
		t.Error("an intent is ready, though the store is broken")
	}
}

// Those who ask for a sync while one runs share the next, or fail with the first.
func TestConcurrentSyncs(t *testing.T) {
	const callers = 20
	for _, fails := range []bool{false, true} {
		disk := memfs.New(1)
		s := openIn(t, disk)
		must(t, s.WriteAt(sector(1), 0))
		reached, release := stall(disk, "sync", "data")
		syncs := 0
		inner := disk.Stall
		disk.Stall = func(op, name string) {
			if op == "sync" && filepath.Base(name) == "data" {
				syncs++ // s.syncing is held
			}
			inner(op, name)
		}
		if fails {
			disk.FailSync(1)
		}
		done := make(chan error, callers+1)
		sync := func() { done <- s.Sync() }
		go sync()
		<-reached
		for range callers {
			go sync()
		}
		for s.asked.Load() < callers+1 {
			runtime.Gosched()
		}
		close(release)
		for range callers + 1 {
			if err := <-done; errors.Is(err, ErrBroken) != fails {
				t.Errorf("%v, when syncs fail: %v", err, fails)
			}
		}
		if want := map[bool]int{false: 2, true: 1}[fails]; syncs != want {
			t.Errorf("%d syncs, want %d", syncs, want)
		}
	}
}
