package powercut

import (
	"errors"
	"fmt"
	"os"
)

const chunkSize = 64 << 10

// Disk is a disk in memory, of zeroes until it is written.
type Disk struct {
	size   int64
	chunks [][]byte // nil is zeroes
}

// NewDisk returns a disk of size bytes.
func NewDisk(size int64) *Disk {
	return &Disk{size: size, chunks: make([][]byte, (size+chunkSize-1)/chunkSize)}
}

// Size is in bytes.
func (d *Disk) Size() int64 { return d.size }

// each visits the parts of a range within one chunk each; done is how many bytes
// came before.
func each(off, length int64, visit func(chunk, at, done, n int64)) {
	for done := int64(0); done < length; {
		at := (off + done) % chunkSize
		n := min(length-done, chunkSize-at)
		visit((off+done)/chunkSize, at, done, n)
		done += n
	}
}

func (d *Disk) write(p []byte, off int64) {
	each(off, int64(len(p)), func(chunk, at, done, n int64) {
		if d.chunks[chunk] == nil {
			d.chunks[chunk] = make([]byte, chunkSize)
		}
		copy(d.chunks[chunk][at:], p[done:done+n])
	})
}

func (d *Disk) zero(off, length int64) {
	each(off, length, func(chunk, at, _, n int64) {
		switch {
		case n == chunkSize:
			d.chunks[chunk] = nil
		case d.chunks[chunk] != nil:
			clear(d.chunks[chunk][at : at+n])
		}
	})
}

// Save makes the file hold what the disk holds, as holes where that is nothing.
func (d *Disk) Save(name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("save disk: %w", err)
	}
	defer func() {
		if e := f.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("save disk: %w", e))
		}
	}()
	if err := f.Truncate(d.size); err != nil {
		return fmt.Errorf("save disk: %w", err)
	}
	for i, chunk := range d.chunks {
		off := int64(i) * chunkSize
		if chunk == nil {
			continue
		}
		if _, err := f.WriteAt(chunk[:min(chunkSize, d.size-off)], off); err != nil {
			return fmt.Errorf("save disk: %w", err)
		}
	}
	return nil
}
