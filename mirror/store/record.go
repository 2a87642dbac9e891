package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lockstep/mirror/store/vfs"
)

// ErrCorrupt is wrapped by the errors about a file that is not what was written
// to it; they name the file, the place and what is wrong there.
var ErrCorrupt = errors.New("corrupt")

// The format of a record; doc.go has the table.
const (
	recordMagic  = 0x4c535231 // "LSR1"
	recordHeader = 8
	recordSum    = 4
	maxRecord    = 1 << 20 // bytes of data
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// metadata is the directory beside the data and the file system that it is on.
type metadata struct {
	fs  vfs.FS
	dir string
}

func (d metadata) path(name string) string { return filepath.Join(d.dir, name) }

// open opens a file that is there.
func (d metadata) open(name string) (vfs.File, error) {
	return d.fs.OpenFile(d.path(name), os.O_RDWR, 0)
}

// replace makes the file name what fill writes: when it returns that is durable,
// and at every moment before, even in a power cut, the file is the old or the new one.
func (d metadata) replace(name string, fill func(vfs.File) error) error {
	temp := d.path(name) + ".tmp"
	f, err := d.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(fillAndSync(f, fill), f.Close()); err != nil {
		return err
	}
	if err := d.fs.Rename(temp, d.path(name)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.dir)
}

func fillAndSync(f vfs.File, fill func(vfs.File) error) error {
	if err := fill(f); err != nil {
		return err
	}
	return f.Sync()
}

func recordFile(name string) string { return name + ".record" }

func (d metadata) writeRecord(name string, data []byte) error {
	if name == "" || strings.ContainsRune(name, filepath.Separator) || len(data) > maxRecord {
		return fmt.Errorf("write record %q of %d bytes in %s: a record has a plain name and at most %d bytes", name, len(data), d.dir, maxRecord)
	}
	err := d.replace(recordFile(name), func(f vfs.File) error {
		_, err := f.WriteAt(encodeRecord(data), 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("write record %q in %s: %w", name, d.dir, err)
	}
	return nil
}

func (d metadata) readRecord(name string) ([]byte, error) {
	f, err := d.open(recordFile(name))
	if err != nil {
		return nil, fmt.Errorf("read record %q: %w", name, err)
	}
	defer f.Close()
	raw, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("read record %q in %s: %w", name, d.dir, err)
	}
	data, err := decodeRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(recordFile(name)), err)
	}
	return data, nil
}

// readAll reads as much of a file as the largest record takes, and a byte more,
// so that what is too long shows.
func readAll(f vfs.File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, min(size, recordHeader+maxRecord+recordSum+1))
	if n, err := f.ReadAt(raw, 0); n < len(raw) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return raw, nil
}

func encodeRecord(data []byte) []byte {
	raw := make([]byte, 0, recordHeader+len(data)+recordSum)
	raw = binary.BigEndian.AppendUint32(raw, recordMagic)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(data)))
	raw = append(raw, data...)
	return binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
}

func decodeRecord(raw []byte) ([]byte, error) {
	if len(raw) < recordHeader+recordSum {
		return nil, fmt.Errorf("%w: %d bytes are no record", ErrCorrupt, len(raw))
	}
	if magic := binary.BigEndian.Uint32(raw); magic != recordMagic {
		return nil, fmt.Errorf("%w: magic is %08x, not %08x", ErrCorrupt, magic, recordMagic)
	}
	length, body := binary.BigEndian.Uint32(raw[4:]), raw[recordHeader:len(raw)-recordSum]
	if int64(length) != int64(len(body)) {
		return nil, fmt.Errorf("%w: length is %d, but %d bytes are there", ErrCorrupt, length, len(body))
	}
	stored, sum := binary.BigEndian.Uint32(raw[len(raw)-recordSum:]), crc32.Checksum(raw[:len(raw)-recordSum], castagnoli)
	if stored != sum {
		return nil, fmt.Errorf("%w: checksum is %08x, not %08x", ErrCorrupt, stored, sum)
	}
	return body, nil
}

// WriteRecord keeps data, at most 1 MiB, under a name among the metadata: durable
// when it returns, and the old or the new whole at any time. An error leaves
// either. Names are plain file names; the store's own are "meta" and "broken".
func (s *Store) WriteRecord(name string, data []byte) error {
	s.records.Lock()
	defer s.records.Unlock()
	return s.metadata.writeRecord(name, data)
}

// ReadRecord returns what WriteRecord kept; the error wraps fs.ErrNotExist if
// there is nothing of that name, or ErrCorrupt.
func (s *Store) ReadRecord(name string) ([]byte, error) {
	return s.metadata.readRecord(name)
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
