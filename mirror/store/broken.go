package store

import (
	"errors"
	"fmt"
)

// brokenRecord says that a store is broken: a new process would find what could
// not be written in the page cache, and call it durable.
const brokenRecord = "broken"

// breakDown breaks the store because of a failed sync, once and for all.
func (s *Store) breakDown(why error) error {
	if s.broken.Swap(true) {
		return fmt.Errorf("%w (%w)", ErrBroken, why)
	}
	s.metaMu.Lock()
	s.meta.Broken = why.Error()
	s.metaMu.Unlock()
	marking := s.WriteRecord(brokenRecord, []byte(why.Error())) // the best that can be done on a bad disk
	return errors.Join(fmt.Errorf("%w (%w)", ErrBroken, why), marking)
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
	return fmt.Errorf("%w: %s; if another copy is good, %s, and it is copied anew; if this is the only one, check the disk and remove %s",
		ErrBroken, why, anew, record)
}
