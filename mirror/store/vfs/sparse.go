package vfs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Zero asks the kernel first; what it cannot do is written.
func (f *osFile) Zero(off, length int64, allocate bool) error {
	if length == 0 {
		return nil
	}
	modes := []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE}
	if allocate {
		modes = modes[1:]
	}
	for _, mode := range modes {
		err := f.try("zero", func() error {
			return unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, length)
		})
		if !f.cannot(err) {
			return err
		}
	}
	return f.writeZeroes(off, length)
}

// cannot tells a kernel that does not do this from a disk that fails: a device
// answers EINVAL to what is no multiple of its logical block.
func (f *osFile) cannot(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || f.device && errors.Is(err, unix.EINVAL)
}

func (f *osFile) writeZeroes(off, length int64) error {
	zeroes := make([]byte, min(length, 1<<20))
	for end := off + length; off < end; off += int64(len(zeroes)) {
		zeroes = zeroes[:min(int64(len(zeroes)), end-off)]
		if _, err := f.WriteAt(zeroes, off); err != nil {
			return err
		}
	}
	return nil
}

// Data looks for holes in a regular file; a device does not say where its are.
func (f *osFile) Data(off int64) (start, end int64, err error) {
	size, err := f.Size()
	if err != nil || off >= size {
		return size, size, err
	}
	if f.device {
		return off, size, nil
	}
	for {
		start, err = unix.Seek(f.fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return size, size, nil
		}
		if err == nil {
			end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
		}
		switch {
		case errors.Is(err, unix.ENXIO): // the file was cut between the two
			return size, size, nil
		case err != nil:
			return 0, 0, &fs.PathError{Op: "seek", Path: f.Name(), Err: err}
		case end > start:
			return start, end, nil
		}
		off = start + 1 // a hole was punched between the two
	}
}
