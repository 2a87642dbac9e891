package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func temp(t *testing.T) *osFile {
	t.Helper()
	f, err := OS.OpenFile(filepath.Join(t.TempDir(), "file"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f.(*osFile)
}

// The file is compared with a slice of bytes, over random operations.
func TestFileIsBytes(t *testing.T) {
	const size = 1 << 20
	f := temp(t)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	model := make([]byte, size)
	for range 500 {
		off := r.Int64N(size)
		length := min(r.Int64N(20000), size-off)
		var err error
		switch r.IntN(4) {
		case 0:
			err = f.Zero(off, length, r.IntN(2) == 0)
			clear(model[off:][:length])
		case 1: // what a file system that can do neither gets
			err = f.writeZeroes(off, length)
			clear(model[off:][:length])
		default:
			p := bytes.Repeat([]byte{byte(r.IntN(255) + 1)}, int(length))
			_, err = f.WriteAt(p, off)
			copy(model[off:], p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, model) {
		t.Errorf("the file is not what was written: %v", err)
	}
	for off := int64(0); off < size; {
		start, end, err := f.Data(off)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(model[off:start], make([]byte, start-off)) {
			t.Errorf("data between %d and %d is not told", off, start)
		}
		off = end
	}
}

func TestWriteZeroesIsLongerThanItsBuffer(t *testing.T) {
	f := temp(t)
	const size = 3 << 20
	full := bytes.Repeat([]byte{1}, size)
	if _, err := f.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.writeZeroes(1000, 5<<19); err != nil {
		t.Fatal(err)
	}
	clear(full[1000:][:5<<19])
	got := make([]byte, size)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, full) {
		t.Errorf("zeroes are not exactly where they were asked for: %v", err)
	}
}

func TestErrorsNameOperationAndFile(t *testing.T) {
	f := temp(t)
	again, err := OS.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := f.Lock(); err != nil {
		t.Fatal(err)
	}
	var path *fs.PathError
	if err := again.Lock(); !errors.Is(err, ErrLocked) || !errors.As(err, &path) || path.Path != f.Name() {
		t.Errorf("a second lock: %v", err)
	}
	if _, err := OS.OpenFile(f.Name()+"x", os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
