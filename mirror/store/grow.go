package store

import "fmt"

// settleSize makes a store that is smaller as large as was asked for, and ends a growth
// that was cut off: at the size that is asked for now, the old one or a larger one.
//
// The bitmaps stay as they are: they hold the bits of the blocks that they know, and
// what is new has none, since it is zeroes here and on every other replica.
func (s *Store) settleSize() error {
	m := s.Meta()
	if m.Size == s.size && !m.growing {
		return s.checkSize(m)
	}
	if err := s.checkGrowth(m); err != nil {
		return err
	}
	unlock, err := s.lockIntents()
	if err != nil {
		return err
	}
	defer unlock()
	if m.Size < s.size {
		if err := s.update(func(m *Meta) { m.growing = true }); err != nil {
			return err
		}
	}
	if err := s.resizeData(m.Size); err != nil {
		return fmt.Errorf("grow from %d to %d bytes: %w", m.Size, s.size, err)
	}
	return s.update(func(m *Meta) { m.Size, m.growing = s.size, false })
}

// checkGrowth is an error if the store of m can't become as large as was asked for.
func (s *Store) checkGrowth(m Meta) error {
	if err := (Options{Size: s.size, Region: m.Region, Block: m.Block}).validate(); err != nil {
		return err
	}
	if !s.data.Device() {
		return s.checkSize(m)
	}
	size, err := s.data.Size()
	if err == nil && size != s.size {
		err = fmt.Errorf("the device has %d bytes, not the %d that the volume is to have; make it that large first", size, s.size)
	}
	return err
}

// lockIntents makes sure that no other store has the directory, until unlock.
func (s *Store) lockIntents() (unlock func(), err error) {
	in := intentFile(s.metadata)
	f, err := in.open(in.name)
	if isMissing(err) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// resizeData gives the data, which had from bytes, its size, durably. A device may hold
// anything where it was never used, so that is zeroed.
func (s *Store) resizeData(from int64) error {
	var err error
	switch {
	case !s.data.Device():
		err = s.data.Truncate(s.size)
	case from < s.size:
		err = s.data.Zero(from, s.size-from, false)
	}
	if err != nil {
		return err
	}
	if err := s.data.Sync(); err != nil {
		return s.breakDown(err) // of what was written by the process before, too
	}
	return nil
}
