package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lockstep/mirror/dirty"
)

// outOfSync is the out-of-sync bitmaps, one file for each absent replica.
type outOfSync struct {
	mu sync.Mutex // held during I/O: saves are rare and behind no write
	// kept holds, for files that are known to be whole, which pages have a bit. Only
	// those are written in place; any other is replaced.
	kept map[[16]byte][]bool
}

func (s *Store) outOfSyncFile(id [16]byte) bitmapFile {
	return bitmapFile{metadata: s.metadata, name: "outofsync-" + hex.EncodeToString(id[:]), kind: outOfSyncKind, peer: id}
}

func (s *Store) newOutOfSync() *dirty.Map { return dirty.New(s.size, s.Meta().Block) }

// SaveOutOfSync keeps m as what the replica id misses: durable when it returns,
// and each page the old or the new at any time, so a block that is in both is
// never lost. It takes m's changes and writes only those where it can. After an
// error some pages may be the new ones; saving again mends that. m is not
// used after the return, and must have the volume's size and Options.Block.
func (s *Store) SaveOutOfSync(id [16]byte, m *dirty.Map) error {
	if block := s.Meta().Block; m.Size() != s.size || m.Block() != block {
		return fmt.Errorf("save out-of-sync bitmap of %x: it is for %d bytes in blocks of %d, the store has %d in %d",
			id, m.Size(), m.Block(), s.size, block)
	}
	s.outOfSync.mu.Lock()
	defer s.outOfSync.mu.Unlock()
	b := s.outOfSyncFile(id)
	kept, known := s.outOfSync.kept[id]
	delete(s.outOfSync.kept, id) // until it is written without an error
	var err error
	if known {
		err = b.change(m, kept)
	} else {
		err = b.create(m)
	}
	if err != nil {
		return fmt.Errorf("save out-of-sync bitmap of %x: %w", id, err)
	}
	s.outOfSync.kept[id] = havingBits(m)
	return nil
}

// change writes what differs in m from what the file holds: the pages that changed, and
// those that are kept but that m, if it is not the map that was saved last, never had.
func (b bitmapFile) change(m *dirty.Map, kept []bool) error {
	pages := m.TakeChanged()
	for i, has := range havingBits(m) {
		if kept[i] && !has {
			pages = append(pages, i)
		}
	}
	slices.Sort(pages)
	f, err := b.open(b.name)
	if err != nil {
		return err
	}
	if err := b.write(f, m, slices.Compact(pages)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

func havingBits(m *dirty.Map) []bool {
	has := make([]bool, m.Pages())
	for _, page := range pagesIn(m) {
		has[page] = true
	}
	return has
}

// OutOfSync returns what SaveOutOfSync kept for a replica, or an error that wraps
// fs.ErrNotExist if there is nothing. With an error that wraps ErrCorrupt the
// map is usable: what could not be read counts as missed.
func (s *Store) OutOfSync(id [16]byte) (*dirty.Map, error) {
	s.outOfSync.mu.Lock()
	defer s.outOfSync.mu.Unlock()
	b, m := s.outOfSyncFile(id), s.newOutOfSync()
	f, err := b.open(b.name)
	if err != nil {
		return nil, fmt.Errorf("out-of-sync bitmap of %x: %w", id, err)
	}
	defer f.Close()
	whole, err := b.load(f, m)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, fmt.Errorf("out-of-sync bitmap of %x: %w", id, err)
	}
	delete(s.outOfSync.kept, id) // the next save replaces the file
	if whole {
		s.outOfSync.kept[id] = havingBits(m)
	}
	return m, err
}

// RemoveOutOfSync forgets what a replica misses, durably; it is no error if there
// is nothing to forget.
func (s *Store) RemoveOutOfSync(id [16]byte) error {
	s.outOfSync.mu.Lock()
	defer s.outOfSync.mu.Unlock()
	delete(s.outOfSync.kept, id)
	b := s.outOfSyncFile(id)
	err := s.fs.Remove(b.path(b.name))
	if isMissing(err) { // an earlier removal may not have been made durable
		err = nil
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("remove out-of-sync bitmap of %x: %w", id, err)
	}
	return nil
}
