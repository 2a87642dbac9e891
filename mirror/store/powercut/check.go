package powercut

import (
	"fmt"

	"lockstep/mirror/store"
)

// CheckStore opens the store as after a power cut, and returns the sectors, at most
// a few, that may not hold what they hold. With intents it also looks whether those that
// are newer than what was promised are in regions that would be compared. An error is that
// the store could not be opened or read, which after a promise is a loss, too.
func CheckStore(o store.Options, m *Model, intents bool) ([]Loss, error) {
	const enough = 5
	o.BootID = func() ([16]byte, error) { return [16]byte{'c', 'u', 't'}, nil }
	s, err := store.Open(o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	marked := s.Intents()
	buf := make([]byte, o.Size)
	if err := s.ReadAt(buf, 0); err != nil {
		return nil, err
	}
	var losses []Loss
	for number := range o.Size / SectorSize {
		off := number * SectorSize
		sector := buf[off:][:SectorSize]
		loss, ok := m.Check(number, sector)
		if ok && intents && m.Unpromised(number, sector) && !marked.Has(off, SectorSize) {
			loss, ok = Loss{number, fmt.Sprintf("it is newer than operation %d, up to which all was promised, and has no intent", m.Synced())}, false
		}
		if !ok {
			losses = append(losses, loss)
		}
		if len(losses) == enough {
			break
		}
	}
	return losses, nil
}
