package kernel

import "time"

// timer is how long the kernel waits for a reply. Where a path is lost as soon as a request
// of its first moments can have run out, the server may be slow, a disk in trouble say,
// and requests that begin on the next path get twice the time. (Not those that began
// before: the kernel keeps what each began with.) A path that is lost later had a server
// that replied; it was killed, say, and that is no reason to wait longer for the next one.
// There is a bound, since a server that stops without a word costs that long. After a
// calm it is the configured one again.
type timer struct {
	least   time.Duration
	timeout time.Duration
	since   time.Time // of the present path
	short   int       // paths in a row that were lost soon
}

const (
	maxTimeout = 8 * time.Second
	calm       = time.Minute
)

// attached notes that a path was made.
func (t *timer) attached(at time.Time) { t.since = at }

// lost notes that it was lost, and sets the timeout for the next one.
func (t *timer) lost(at time.Time) {
	switch lasted := at.Sub(t.since); {
	case lasted >= calm:
		t.timeout, t.short = t.least, 0
	case lasted < t.timeout+2*time.Second: // and the kernel's own slack
		t.timeout = max(t.least, min(2*t.timeout, maxTimeout))
		t.short++
	default:
		t.short = 0
	}
}

// unserved says, once, that path after path was lost soon: servers let the agent in and
// then do not answer in time.
func (t *timer) unserved() bool { return t.short == 3 }
