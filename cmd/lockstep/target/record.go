package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// records is where the records are: what they speak of does not outlive a boot either.
// Only tests change it.
var records = "/run/lockstep"

// record says on file what a target is about to put into the kernel, before it does: so
// the next one finds what a killed one left, and can prove that it is that. The file is
// locked, so there is one of a kind at a time; it is empty when there is nothing.
type record struct{ file *os.File }

// thing is something in the kernel, and by what it is told from another of that name.
type thing struct {
	Name     string `json:"name"`     // as its tool calls it: a resource, a device
	Identity string `json:"identity"` // of what it is made: a file, a UUID
}

// openRecord locks the record of one kind of target, and calls mend for each thing that
// a dead run has left in it, the latest first. One that mend can't remove stays on record, and is an error.
func openRecord(kind string, mend func(thing) error) (*record, error) {
	if err := os.MkdirAll(records, 0o700); err != nil {
		return nil, fmt.Errorf("keep a record: %w", err)
	}
	path := filepath.Join(records, kind+".json")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep a record: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another sweep of %s runs (it holds %s): wait for it", kind, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	r := &record{file}
	if err := r.mend(mend); err != nil {
		return nil, errors.Join(fmt.Errorf("remove what an earlier run left, as %s says: %w", path, err), file.Close())
	}
	return r, nil
}

func (r *record) mend(mend func(thing) error) error {
	text, err := io.ReadAll(io.NewSectionReader(r.file, 0, 1<<16))
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(text)) == "" {
		return nil
	}
	var left []thing
	if err := json.Unmarshal(text, &left); err != nil {
		return fmt.Errorf("%w: look what is there by hand, then remove the file", err)
	}
	for len(left) > 0 {
		if err := mend(left[len(left)-1]); err != nil {
			return err
		}
		left = left[:len(left)-1]
		if err := r.write(left); err != nil {
			return err
		}
	}
	return nil
}

// write replaces the record.
func (r *record) write(things []thing) error {
	text, err := json.Marshal(things)
	if err != nil {
		return err
	}
	if len(things) == 0 {
		text = nil
	}
	// Padded, and cut only then: it is one or the other at any time, and JSON with
	// blanks after it is JSON.
	old, err := r.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	padded := string(text) + strings.Repeat(" ", max(0, int(old)-len(text)))
	if _, err := r.file.WriteAt([]byte(padded), 0); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	if err := r.file.Truncate(int64(len(text))); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}

func (r *record) close() error { return r.file.Close() }

// trimDeleted is a path as the kernel shows it without what it adds when the file is
// gone.
func trimDeleted(path string) string {
	return strings.TrimSuffix(strings.TrimRight(path, "\n"), " (deleted)")
}
