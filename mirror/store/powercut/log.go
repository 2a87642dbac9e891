package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Flags of an entry, as the kernel has them.
const (
	Flush    = 1 << 0 // everything that had completed is durable
	FUA      = 1 << 1 // this write was durable when it completed
	Discard  = 1 << 2 // no data: what was there is given up
	Mark     = 1 << 3 // no data: what a user had put into the log
	Metadata = 1 << 4 // the file system called it metadata
)

const (
	logMagic   = 0x6a736677736872
	logVersion = 1
	headerSize = 32 // of an entry, before its mark

	// maxSector and maxEntry bound what a damaged log can ask for.
	maxSector = 64 << 10
	maxEntry  = 1 << 30
)

// ErrLog is wrapped by the errors of a log that is none, or is damaged.
var ErrLog = errors.New("not a whole log of dm-log-writes")

// Entry is one request that the disk was given, or a mark.
type Entry struct {
	Index   uint64 // in the log, from 0
	Flags   uint64
	Off     int64 // on the disk, in bytes
	Len     int64 // bytes
	Mark    string
	dataOff int64 // in the log
}

// Log reads a log, from the first entry to the last.
type Log struct {
	r       io.ReaderAt
	sector  int64
	entries uint64
	index   uint64
	off     int64
}

// OpenLog begins with the first entry of the log in r.
func OpenLog(r io.ReaderAt) (*Log, error) {
	var super [28]byte
	if _, err := r.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("read log: super: %w", err)
	}
	l := &Log{r: r, entries: binary.LittleEndian.Uint64(super[16:]), sector: int64(binary.LittleEndian.Uint32(super[24:]))}
	magic, version := binary.LittleEndian.Uint64(super[:]), binary.LittleEndian.Uint64(super[8:])
	switch {
	case magic != logMagic || version != logVersion:
		return nil, fmt.Errorf("read log: magic %#x, version %d: %w", magic, version, ErrLog)
	case l.sector < 512 || l.sector > maxSector || l.sector&(l.sector-1) != 0:
		return nil, fmt.Errorf("read log: sectors of %d bytes: %w", l.sector, ErrLog)
	}
	l.off = l.sector
	return l, nil
}

// Entries is how many there are in the log.
func (l *Log) Entries() uint64 { return l.entries }

// Next returns the next entry, or io.EOF after the last.
func (l *Log) Next() (Entry, error) {
	if l.index == l.entries {
		return Entry{}, io.EOF
	}
	header := make([]byte, l.sector)
	if _, err := l.r.ReadAt(header, l.off); err != nil {
		return Entry{}, fmt.Errorf("read log: entry %d of %d: %w", l.index, l.entries, noEOF(err))
	}
	e, err := l.decode(header)
	if err != nil {
		return Entry{}, fmt.Errorf("read log: entry %d at %d: %w: %w", l.index, l.off, err, ErrLog)
	}
	l.index++
	l.off = e.dataOff
	if e.Flags&Discard == 0 {
		l.off += e.Len
	}
	return e, nil
}

func (l *Log) decode(header []byte) (Entry, error) {
	sector, sectors := binary.LittleEndian.Uint64(header), binary.LittleEndian.Uint64(header[8:])
	flags, mark := binary.LittleEndian.Uint64(header[16:]), binary.LittleEndian.Uint64(header[24:])
	limit := uint64(maxEntry / l.sector)
	switch {
	case flags >= Metadata<<1:
		return Entry{}, fmt.Errorf("flags %#x", flags)
	case sector > 1<<40 || flags&Discard == 0 && sectors > limit || sectors > 1<<40:
		return Entry{}, fmt.Errorf("%d sectors from %d on", sectors, sector)
	case mark > uint64(l.sector-headerSize):
		return Entry{}, fmt.Errorf("a mark of %d bytes", mark)
	}
	e := Entry{Index: l.index, Flags: flags, Off: int64(sector) * l.sector, Len: int64(sectors) * l.sector, dataOff: l.off + l.sector}
	if flags&Mark != 0 {
		e.Mark = string(header[headerSize : headerSize+mark])
	}
	return e, nil
}

// Apply does to the disk what the entry did to the one that was logged.
func (l *Log) Apply(e Entry, d *Disk) error {
	if e.Flags&Mark != 0 || e.Len == 0 {
		return nil
	}
	if e.Off > d.Size()-e.Len {
		return fmt.Errorf("apply entry %d: %d bytes at %d, on a disk of %d: is this its log?", e.Index, e.Len, e.Off, d.Size())
	}
	if e.Flags&Discard != 0 {
		d.zero(e.Off, e.Len)
		return nil
	}
	buf := make([]byte, e.Len)
	if _, err := l.r.ReadAt(buf, e.dataOff); err != nil {
		return fmt.Errorf("apply entry %d: %w", e.Index, noEOF(err))
	}
	d.write(buf, e.Off)
	return nil
}

// noEOF makes of an end of the file what it is here: a log that was cut off.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the log ends too early: %w", ErrLog)
	}
	return err
}
