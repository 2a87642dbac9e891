package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"
)

func TestClampExtents(t *testing.T) {
	data, hole := func(n uint64) Extent { return Extent{Length: n} }, func(n uint64) Extent { return Extent{Length: n, Hole: true, Zero: true} }
	var alternating []Extent
	for range MaxExtents {
		alternating = append(alternating, data(1), hole(1))
	}
	for _, tc := range []struct {
		name   string
		in     []Extent
		length uint64
		one    bool
		want   []Extent
	}{
		{"as it is", []Extent{data(1), hole(2)}, 3, false, []Extent{data(1), hole(2)}},
		{"cut to the request", []Extent{data(1), hole(1 << 50)}, 3, false, []Extent{data(1), hole(2)}},
		{"what lies behind", []Extent{data(3), hole(1)}, 3, false, []Extent{data(3)}},
		{"neighbours", []Extent{data(1), data(1), hole(1)}, 3, false, []Extent{data(2), hole(1)}},
		{"one, joined", []Extent{data(1), data(1), hole(1)}, 3, true, []Extent{data(2)}},
		{"empty ones", []Extent{hole(0), data(1), hole(0), data(1)}, 3, false, []Extent{data(2)}},
		{"none", nil, 3, false, nil},
		{"too many", alternating, 1 << 30, false, alternating[:MaxExtents]},
	} {
		if got := clampExtents(slices.Clone(tc.in), tc.length, tc.one); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %d extents", tc.name, len(got))
		}
	}
}

func TestErrno(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want uint32
	}{
		{nil, 0},
		{errors.New("no number"), NBD_EIO},
		{syscall.Errno(0), NBD_EIO},
		{syscall.EROFS, 1},
		{&fs.PathError{Op: "write", Path: "/d", Err: syscall.EDQUOT}, NBD_ENOSPC},
		{fmt.Errorf("wrapped: %w", syscall.EFBIG), NBD_ENOSPC},
		{syscall.EOVERFLOW, NBD_EOVERFLOW},
		{syscall.ESHUTDOWN, NBD_ESHUTDOWN},
		{syscall.EOPNOTSUPP, NBD_ENOTSUP},
		{syscall.ENOMEM, NBD_ENOMEM},
		{syscall.EINVAL, 22},
		{syscall.ETIMEDOUT, NBD_EIO},
	} {
		if got := errnoOf(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}
