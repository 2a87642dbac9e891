package host

import (
	"testing"
	"time"
)

// TestADiskHasLongerThanALease: whoever is to take over from a primary whose disk hangs
// must be known to be there, which takes a lease and the time to miss a lost copy.
func TestADiskHasLongerThanALease(t *testing.T) {
	for _, tc := range []struct{ limit, lease, want time.Duration }{
		{500 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond},
		{500 * time.Millisecond, 3 * time.Second, 5 * time.Second},
		{time.Minute, 3 * time.Second, time.Minute},
	} {
		if got := diskTimeout(tc.limit, tc.lease); got != tc.want {
			t.Errorf("with a lease of %v and a limit of %v: %v, want %v", tc.lease, tc.limit, got, tc.want)
		}
	}
}
