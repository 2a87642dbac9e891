package store

import (
	"errors"
	"fmt"
)

// brokenRecord says that a store is broken: a new process would find what could
// not be written in the page cache, and call it durable.
const brokenRecord = "broken"

// aheadRecord is a record "broken" that was written ahead, when the disk had room
// for it: it takes the place of one that cannot be written any more.
const aheadRecord = "broken-ahead"

const aheadText = "a sync failed, and then there was no room to write why"

// writeAhead makes sure that there is a record to fall back on.
func (s *Store) writeAhead() error {
	_, err := s.ReadRecord(aheadRecord)
	if isMissing(err) || errors.Is(err, ErrCorrupt) {
		err = s.WriteRecord(aheadRecord, []byte(aheadText))
	}
	return err
}

// mark says durably that the store is broken, as well as a bad disk can.
func (s *Store) mark(why error) error {
	err := s.WriteRecord(brokenRecord, []byte(why.Error()))
	if err == nil {
		return nil
	}
	s.records.Lock()
	defer s.records.Unlock()
	ahead := s.fs.Rename(s.metadata.path(recordFile(aheadRecord)), s.metadata.path(recordFile(brokenRecord)))
	if ahead == nil {
		ahead = s.fs.SyncDir(s.dir)
	}
	if ahead == nil {
		return nil
	}
	return errors.Join(err, ahead)
}

// breakDown breaks the store because of a failed sync, once and for all.
func (s *Store) breakDown(why error) error {
	if s.broken.Swap(true) {
		return fmt.Errorf("%w (%w)", ErrBroken, why)
	}
	s.metaMu.Lock()
	s.meta.Broken = why.Error()
	s.metaMu.Unlock()
	return errors.Join(fmt.Errorf("%w (%w)", ErrBroken, why), s.mark(why))
}

// refuseBroken is an error if an earlier process left the store broken.
func (s *Store) refuseBroken() error {
	why, err := s.ReadRecord(brokenRecord)
	switch {
	case isMissing(err):
		return nil
	case errors.Is(err, ErrCorrupt): // it was written as well as the disk could
		why = []byte(err.Error())
	case err != nil:
		return err
	}
	record := s.metadata.path(recordFile(brokenRecord))
	anew := fmt.Sprintf("remove %s and %s", s.path, s.dir)
	if s.data.Device() {
		anew = fmt.Sprintf("replace the disk, or check it and restart the machine, and remove %s", s.dir)
	}
	return fmt.Errorf("%w: %s; if another copy is good, serve that one, %s, and use this as its replica: it is copied anew; if this is the only one, check the disk and remove %s",
		ErrBroken, why, anew, record)
}
