package kernel

import (
	"testing"
	"time"
)

// TestASlowServerGetsTime loses paths after they lasted so long each.
func TestASlowServerGetsTime(t *testing.T) {
	at := time.Unix(0, 0)
	m := timer{least: time.Second, timeout: time.Second}
	for i, tc := range []struct{ lasted, want time.Duration }{
		{30 * time.Second, time.Second}, // a server that died
		{2 * time.Second, 2 * time.Second},
		{3 * time.Second, 4 * time.Second},
		{25 * time.Second, 4 * time.Second}, // again
		{5 * time.Second, 8 * time.Second},
		{9 * time.Second, 8 * time.Second},
		{45 * time.Second, 8 * time.Second},
		{calm, time.Second},
	} {
		m.attached(at)
		at = at.Add(tc.lasted)
		if m.lost(at); m.timeout != tc.want {
			t.Errorf("loss %d, after %v: a request has %v, want %v", i, tc.lasted, m.timeout, tc.want)
		}
	}
}

// TestNobodyReplies is said at the third path in a row that was lost soon, and once.
func TestNobodyReplies(t *testing.T) {
	at := time.Unix(0, 0)
	m := timer{least: time.Second, timeout: time.Second}
	for i, tc := range []struct {
		lasted time.Duration
		want   bool
	}{
		{time.Second, false}, {time.Second, false}, {30 * time.Second, false}, // it did reply
		{time.Second, false}, {time.Second, false}, {time.Second, true}, {time.Second, false},
	} {
		m.attached(at)
		at = at.Add(tc.lasted)
		if m.lost(at); m.unserved() != tc.want {
			t.Errorf("loss %d: said %v, want %v", i, !tc.want, tc.want)
		}
	}
}
