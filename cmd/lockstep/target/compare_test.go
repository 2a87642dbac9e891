package target

import (
	"errors"
	"os"
	"strings"
	"testing"

	"lockstep/wanem/sweep"
)

func TestCompareFiles(t *testing.T) {
	const size = 5 << 20
	for _, tc := range []struct {
		name  string
		a, b  int64 // where a byte is set; -1: nowhere
		first int64
	}{
		{"both empty", -1, -1, -1},
		{"the same byte", 3 << 20, 3 << 20, -1},
		{"a byte in one only", 3<<20 + 7, -1, 3<<20 + 7},
		{"the last byte", -1, size - 1, size - 1},
		{"different bytes", 12345, 4 << 20, 12345},
	} {
		a, b := sparseFile(t, size, tc.a), sparseFile(t, size, tc.b)
		err := CompareFiles(t.Context(), a, b, size)
		if tc.first < 0 {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		var differ *sweep.DifferenceError
		if !errors.As(err, &differ) || differ.Offset != tc.first {
			t.Errorf("%s: error %v, want a difference at %d", tc.name, err, tc.first)
		}
	}
	short := sparseFile(t, 1000, 0)
	if err := CompareFiles(t.Context(), short, sparseFile(t, size, 0), size); err == nil || !strings.Contains(err.Error(), "shorter than the volume") {
		t.Errorf("a short file: error %v", err)
	}
}

func sparseFile(t *testing.T, size, set int64) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if set >= 0 {
		if _, err := f.WriteAt([]byte{1}, set); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}
