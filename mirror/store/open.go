package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lockstep/mirror/store/vfs"
)

// Open opens a store, or creates it where there is nothing. A file or device that
// has no metadata becomes a store that is no full copy of anything. It fails with
// an error that names what is wrong and how to mend it, and has then changed
// nothing that was there: if another process has the store open, its size
// or granularity is another, its metadata is corrupt or it is broken (ErrBroken). Only
// a growth that fails midway leaves something, of which the next Open takes care.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{path: o.Path, size: o.Size, outOfSync: outOfSync{kept: make(map[[16]byte][]bool)}}
	err := o.validate()
	if err == nil {
		err = s.open(o)
	}
	if err != nil {
		s.release()
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	return s, nil
}

func (s *Store) open(o Options) error {
	boot, err := o.BootID()
	if err != nil {
		return err
	}
	if err := s.openData(o); err != nil {
		return err
	}
	dir, err := o.metaDir(s.data.Device())
	if err != nil {
		return err
	}
	s.metadata = metadata{o.FS, dir}
	if err := s.refuseBroken(); err != nil {
		return err
	}
	if err := s.findMeta(o); err != nil {
		return err
	}
	if err := s.sizeData(); err != nil {
		return err
	}
	if err := s.openIntents(); err != nil {
		return err
	}
	if err := s.writeAhead(); err != nil {
		return err
	}
	return s.update(func(m *Meta) { m.begin(boot) })
}

func (s *Store) openData(o Options) (err error) {
	flag := os.O_RDWR
	if o.Direct {
		flag |= unix.O_DIRECT
	}
	// A file that takes the place of a mistyped device would be in memory.
	if !strings.HasPrefix(o.Path, "/dev/") || strings.HasPrefix(o.Path, "/dev/shm/") {
		flag |= os.O_CREATE
	}
	if s.data, err = o.FS.OpenFile(o.Path, flag, 0o600); err != nil {
		return err
	}
	if align := int64(s.data.Align()); s.size%align != 0 {
		return fmt.Errorf("size %d is not a multiple of the disk's %d bytes: do without direct I/O, or take another size", s.size, align)
	}
	return lock(s.data)
}

func lock(f vfs.File) error {
	err := f.Lock()
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w; stop that one, or use another file", err)
	}
	return err
}

// findMeta reads the metadata, or makes it up for data that has none.
func (s *Store) findMeta(o Options) error {
	raw, err := s.ReadRecord(metaRecord)
	if isMissing(err) {
		return s.adopt(o)
	}
	var m Meta
	if err == nil {
		m, err = decodeMeta(raw)
	}
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w; if another copy is good, serve that one, remove the directory %s, and use this as its replica (--overwrite): it is compared in full", err, s.dir)
	}
	if err != nil {
		return err
	}
	if err := o.agrees(m); err != nil {
		return fmt.Errorf("metadata in %s: %w", s.dir, err)
	}
	s.setMeta(m)
	return s.settleSize()
}

// agrees is an error if a store that is made like m is not what was asked for.
func (o Options) agrees(m Meta) error {
	if o.Grow {
		o.Size = min(o.Size, m.Size)
	}
	for _, is := range []struct {
		what         string
		asked, found int64
	}{{"size", o.Size, m.Size}, {"region", o.Region, m.Region}, {"block", o.Block, m.Block}} {
		if is.asked != 0 && is.asked != is.found {
			return fmt.Errorf("its %s is %d bytes, not the %d asked for; give its own, or another file", is.what, is.found, is.asked)
		}
	}
	return nil
}

// checkSize compares the data's size with that of m; a blank store's may be yet to be
// set.
func (s *Store) checkSize(m Meta) error {
	size, err := s.data.Size()
	switch {
	case err != nil:
		return err
	case size == m.Size, size == 0 && m.blank && !s.data.Device(), size > m.Size && m.growing:
		return nil
	case size == 0:
		return fmt.Errorf("the data is gone, though %s is there; give the path it is at now, or remove that directory to begin anew", s.dir)
	}
	return fmt.Errorf("holds %d bytes, not the %d asked for; give its true --size, or another file", size, m.Size)
}

// adopt makes a store of data without metadata. An empty file is a new store;
// it gets its size only when the metadata says so, lest a crash in between
// turn it into data that someone put there.
func (s *Store) adopt(o Options) error {
	m := o.geometry()
	size, err := s.data.Size()
	if err != nil {
		return err
	}
	m.blank = size == 0 && !s.data.Device()
	if err := s.checkSize(m); err != nil {
		return err
	}
	m.Replica = o.NewID()
	m.Why = "it was found without metadata, so whose copy it is is unknown"
	if m.blank {
		m.Why = "it is new"
	}
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.fs.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	// The intents come first: where there is metadata but no intents, they were lost.
	if err := intentFile(s.metadata).create(newIntents(s.metadata, m).set); err != nil {
		return fmt.Errorf("create intents in %s: %w", s.dir, err)
	}
	return s.update(func(now *Meta) { *now = m })
}

// sizeData gives a blank store its size, durably: before it is used, it is there.
func (s *Store) sizeData() error {
	if !s.blank.Load() {
		return nil
	}
	size, err := s.data.Size()
	if err == nil && size != s.size {
		err = s.data.Truncate(s.size)
	}
	return errors.Join(err, s.data.Sync(), s.fs.SyncDir(filepath.Dir(s.path)))
}

// openIntents loads the intents that were found. What is damaged counts as set,
// and is replaced by a file that says so, as is one from before the store grew.
func (s *Store) openIntents() error {
	in := newIntents(s.metadata, s.Meta())
	in.broke = s.breakDown
	s.intents = in
	whole, err := s.loadIntents()
	if isMissing(err) {
		in.set.AddAll()
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if errors.Is(err, ErrCorrupt) {
		s.warnings = append(s.warnings, fmt.Errorf("intents: %w; what they cover counts as written", err))
		err = nil
	}
	if err == nil && !whole {
		err = in.replaceFile()
	}
	if err != nil {
		return fmt.Errorf("intents: %w", err)
	}
	in.found()
	return nil
}

func (s *Store) loadIntents() (whole bool, err error) {
	in := s.intents
	if err := in.openFile(); err != nil {
		return false, err
	}
	return in.load(in.f, in.set)
}

// openFile opens and locks the file: two stores may have been given one directory.
func (in *intents) openFile() (err error) {
	if in.f, err = in.open(in.name); err != nil {
		return err
	}
	return lock(in.f)
}

// replaceFile puts a file that holds the set in the place of a damaged one.
func (in *intents) replaceFile() error {
	if in.f != nil {
		in.f.Close()
	}
	if err := in.create(in.set); err != nil {
		return err
	}
	return in.openFile()
}

// found makes the regions of the set ready: their intents are on disk.
func (in *intents) found() {
	for off := int64(0); ; {
		start, length, ok := in.set.Next(off, math.MaxInt64)
		if !ok {
			return
		}
		for r := in.span(start, length); r.from < r.to; r.from++ {
			in.region[r.from].Store(regionReady)
		}
		off = start + length
	}
}

// CloseClean makes everything durable, marks the store as cleanly stopped and
// releases it. After an error it is released too, and not clean.
func (s *Store) CloseClean() error {
	err := s.Sync()
	if err == nil {
		err = s.intents.close()
	}
	if err == nil {
		err = s.update(func(m *Meta) { m.Clean = true })
	}
	return errors.Join(err, s.Close())
}

func (in *intents) close() error {
	in.io.Lock()
	defer in.io.Unlock()
	return in.flush(true)
}

// Close releases the store without making anything durable, as a crash would.
func (s *Store) Close() error { return s.release() }

func (s *Store) release() error {
	var errs []error
	if s.intents != nil && s.intents.f != nil {
		errs = append(errs, s.intents.f.Close())
	}
	if s.data != nil {
		errs = append(errs, s.data.Close())
	}
	return errors.Join(errs...)
}
