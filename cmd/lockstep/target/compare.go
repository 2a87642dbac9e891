package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"lockstep/wanem/sweep"
)

// CompareFiles compares the first size bytes of two files. Holes read as
// zeroes; where both have one nothing is read. A difference is a
// *sweep.DifferenceError.
func CompareFiles(ctx context.Context, a, b string, size int64) error {
	fa, err := os.Open(a)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	defer fb.Close()
	const chunk = 1 << 20
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for off := int64(0); ; off += chunk {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if off, err = nextData(fa, fb, off, size); err != nil || off == size {
			return err
		}
		n := min(chunk, size-off)
		if err := readBoth(fa, fb, bufA[:n], bufB[:n], off); err != nil {
			return err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			return &sweep.DifferenceError{Offset: off + firstDifference(bufA[:n], bufB[:n])}
		}
	}
}

// nextData returns the first offset from off on at which one of the files
// holds data, size if none does before it.
func nextData(a, b *os.File, off, size int64) (int64, error) {
	next := size
	for _, f := range []*os.File{a, b} {
		at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // a hole up to its end
		case err != nil:
			return 0, fmt.Errorf("compare: find data in %s from offset %d: %w", f.Name(), off, err)
		default:
			next = min(next, at)
		}
	}
	return next, nil
}

func readBoth(a, b *os.File, bufA, bufB []byte, off int64) error {
	for f, buf := range map[*os.File][]byte{a: bufA, b: bufB} {
		if _, err := f.ReadAt(buf, off); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the file is shorter than the volume: %w", err)
			}
			return fmt.Errorf("compare: read %s at offset %d: %w", f.Name(), off, err)
		}
	}
	return nil
}

// firstDifference is for slices of one length that are not equal.
func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return -1
}
