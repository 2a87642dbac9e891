package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// written is an entry as the kernel writes it, with its data.
type written struct {
	sector, flags uint64
	mark          string
	data          []byte
	discard       uint64 // sectors
}

// encodeLog makes a log as the kernel does.
func encodeLog(sector int, entries ...written) []byte {
	log := make([]byte, sector)
	binary.LittleEndian.PutUint64(log, logMagic)
	binary.LittleEndian.PutUint64(log[8:], logVersion)
	binary.LittleEndian.PutUint64(log[16:], uint64(len(entries)))
	binary.LittleEndian.PutUint32(log[24:], uint32(sector))
	for _, e := range entries {
		header := make([]byte, sector)
		binary.LittleEndian.PutUint64(header, e.sector)
		binary.LittleEndian.PutUint64(header[8:], uint64(len(e.data)/sector)+e.discard)
		binary.LittleEndian.PutUint64(header[16:], e.flags)
		binary.LittleEndian.PutUint64(header[24:], uint64(len(e.mark)))
		copy(header[headerSize:], e.mark)
		log = append(append(log, header...), e.data...)
	}
	return log
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// play applies the whole log and returns the marks.
func play(t *testing.T, log []byte, d *Disk) (marks []string) {
	t.Helper()
	l, err := OpenLog(bytes.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := l.Next()
		if err == io.EOF {
			return marks
		}
		if err == nil {
			err = l.Apply(e, d)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Flags&Mark != 0 {
			marks = append(marks, e.Mark)
		}
	}
}

func TestLogIsReplayed(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		chunk := chunkSize / sector
		log := encodeLog(sector,
			written{sector: 1, data: fill('a', 3*sector)},
			written{sector: uint64(chunk) - 1, data: fill('b', 2*sector), flags: FUA | Metadata},
			written{flags: Flush},
			written{flags: Mark, mark: "synced-7"},
			written{sector: 2, flags: Discard, discard: 1},
			written{sector: uint64(chunk), flags: Discard, discard: uint64(chunk)},
		)
		d := NewDisk(4 * chunkSize)
		if marks := play(t, log, d); len(marks) != 1 || marks[0] != "synced-7" {
			t.Errorf("marks %q", marks)
		}
		name := filepath.Join(t.TempDir(), "disk")
		if err := d.Save(name); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, d.Size())
		copy(want[sector:], fill('a', sector))
		copy(want[3*sector:], fill('a', sector))
		copy(want[chunkSize-sector:], fill('b', sector))
		if !bytes.Equal(got, want) {
			t.Errorf("with sectors of %d bytes the disk holds something else", sector)
		}
	}
}

func TestDamagedLogsAreRefused(t *testing.T) {
	good := encodeLog(512, written{data: fill('a', 512)}, written{flags: Mark, mark: "m"})
	damage := map[string]func(log []byte) []byte{
		"magic":         func(log []byte) []byte { log[0]++; return log },
		"version":       func(log []byte) []byte { log[8]++; return log },
		"sector size":   func(log []byte) []byte { log[25] = 3; return log },
		"flags":         func(log []byte) []byte { log[512+17] = 1; return log },
		"far sector":    func(log []byte) []byte { log[512+7] = 1; return log },
		"many sectors":  func(log []byte) []byte { log[512+8+7] = 1; return log },
		"long mark":     func(log []byte) []byte { log[1536+24+1] = 2; return log },
		"cut in data":   func(log []byte) []byte { return log[:1100] },
		"cut in header": func(log []byte) []byte { return log[:600] },
		"cut in super":  func(log []byte) []byte { return log[:20] },
	}
	for name, do := range damage {
		l, err := OpenLog(bytes.NewReader(do(bytes.Clone(good))))
		for d := NewDisk(1 << 20); err == nil; {
			var e Entry
			if e, err = l.Next(); err == nil {
				err = l.Apply(e, d)
			}
		}
		if err == io.EOF {
			t.Errorf("%s: was read to the end", name)
		} else if !errors.Is(err, ErrLog) && name != "cut in super" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEntriesBeyondTheDiskAreRefused(t *testing.T) {
	l, err := OpenLog(bytes.NewReader(encodeLog(512, written{sector: 8, data: fill('a', 1024)})))
	if err != nil {
		t.Fatal(err)
	}
	e, err := l.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(e, NewDisk(9*512)); err == nil {
		t.Error("a disk of 9 sectors took sectors 8 and 9")
	}
}

func FuzzLog(f *testing.F) {
	f.Add(encodeLog(512, written{data: fill('a', 512)}, written{flags: Mark, mark: "m"}, written{flags: Discard, discard: 9}))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := OpenLog(bytes.NewReader(log))
		if err != nil {
			return
		}
		d := NewDisk(1 << 20)
		for last := int64(0); ; {
			e, err := l.Next()
			if err != nil {
				return
			}
			if e.dataOff <= last || e.Off < 0 || e.Len < 0 {
				t.Fatalf("entry %+v after one at %d", e, last)
			}
			last = e.dataOff
			_ = l.Apply(e, d) // it may be too far out
		}
	})
}
