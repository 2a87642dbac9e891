package kernel

import "time"

// timer is how long the kernel waits for a reply. Where a path is lost soon after it was
// made, the server may be slow, a disk in trouble say, and requests that begin on the next
// path get twice the time. (Not those that began before: the kernel keeps what each began
// with.) After a long calm it is the configured one again.
type timer struct {
	least   time.Duration
	timeout time.Duration
	since   time.Time // of the present path
	short   int       // paths in a row that were lost soon
}

const (
	maxTimeout = time.Minute
	calm       = 10 * time.Minute
)

// attached notes that a path was made.
func (t *timer) attached(at time.Time) { t.since = at }

// lost notes that it was lost, and sets the timeout for the next one.
func (t *timer) lost(at time.Time) {
	switch lasted := at.Sub(t.since); {
	case lasted >= calm:
		t.timeout, t.short = t.least, 0
	case lasted < 3*t.timeout+2*time.Second: // a request of its first moments, and the kernel's own slack
		t.timeout = max(t.least, min(2*t.timeout, maxTimeout))
		t.short++
	default:
		t.short = 0
	}
}

// unserved says, once, that path after path was lost soon: servers let the agent in and
// then do not answer in time.
func (t *timer) unserved() bool { return t.short == 3 }
