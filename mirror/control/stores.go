package control

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// stores are what a node must not forget.
type stores struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	guard  *guard
	close  func() error
}

func openStores(dir string, to *slog.Logger) (*stores, error) {
	log := newLogger(to)
	logDir := filepath.Join(dir, "log")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, fmt.Errorf("control: make the node's directory: %w", err)
	}
	w, err := wal.Open(logDir, wal.WithLogger(log), wal.WithSegmentSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("control: open raft's log in %s (does another lockstep run there?): %w", logDir, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control: open raft's snapshots in %s: %w", dir, err), w.Close())
	}
	return &stores{
		logs: w, stable: w, snaps: snaps, guard: &guard{}, close: w.Close,
	}, nil
}

// Keys of what is kept beside raft's votes, to be lost only together with them.
var (
	keyIdentity = []byte("lockstep identity")
	keyFounders = []byte("lockstep founders")
)

// identity reads who this directory is and, if its node was there when the cluster
// began, who the others were then. A new directory gets a new identity.
func (s *stores) identity() (id string, founders map[string]string, err error) {
	text, err := s.get(keyIdentity)
	if err == nil && len(text) == 0 {
		text = []byte(rand.Text())
		err = s.stable.Set(keyIdentity, text)
	}
	if err != nil {
		return "", nil, fmt.Errorf("control: the directory's identity: %w", err)
	}
	list, err := s.get(keyFounders)
	if err == nil && len(list) > 0 {
		err = json.Unmarshal(list, &founders)
	}
	if err != nil {
		return "", nil, fmt.Errorf("control: the list of founders: %w", err)
	}
	return string(text), founders, nil
}

// get returns a value, or nothing if there is none: some stores call that an error.
func (s *stores) get(key []byte) ([]byte, error) {
	value, err := s.stable.Get(key)
	if err != nil && err.Error() == "not found" {
		return nil, nil
	}
	return value, err
}

func (s *stores) saveFounders(founders map[string]string) error {
	list, err := json.Marshal(founders)
	if err == nil {
		err = s.stable.Set(keyFounders, list)
	}
	if err != nil {
		return fmt.Errorf("control: save the list of founders: %w", err)
	}
	return nil
}

// fresh says that raft never ran here, so that this node cannot have voted.
func (s *stores) fresh() (bool, error) {
	existing, err := raft.HasExistingState(s.logs, s.stable, s.snaps)
	if err != nil {
		return false, fmt.Errorf("control: look for raft's state: %w", err)
	}
	return !existing, nil
}

// guard knows since when a write to the disk is under way. Raft's main loop is what
// writes, so there is one at a time.
type guard struct{ since atomic.Pointer[time.Time] } // nil: none

func (g *guard) enter() {
	now := time.Now()
	g.since.Store(&now)
}

func (g *guard) leave() { g.since.Store(nil) }

// writing is how long the write under way has taken; 0 if there is none.
func (g *guard) writing() time.Duration {
	if since := g.since.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// guardedLog is a log whose writes the guard knows of.
type guardedLog struct {
	raft.LogStore
	guard *guard
}

func (l guardedLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

func (l guardedLog) StoreLogs(logs []*raft.Log) error {
	l.guard.enter()
	defer l.guard.leave()
	return l.LogStore.StoreLogs(logs)
}

func (l guardedLog) DeleteRange(low, high uint64) error {
	l.guard.enter()
	defer l.guard.leave()
	return l.LogStore.DeleteRange(low, high)
}

// IsMonotonic tells raft what the store under it is.
func (l guardedLog) IsMonotonic() bool {
	m, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
