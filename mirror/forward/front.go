package forward

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"lockstep/mirror"
)

// ErrIsolated ends ops that waited for a primary longer than FrontConfig.Park. It
// is an EIO: whether an op that was sent before took effect is not known.
var ErrIsolated = fmt.Errorf("no primary was reached in time: %w", syscall.EIO)

// ErrAbandoned ends ops of clients that are gone, instead of their being sent again.
var ErrAbandoned = fmt.Errorf("the client has gone: %w", syscall.ESHUTDOWN)

// ErrSuperseded ends the session of a named client that has attached again elsewhere.
var ErrSuperseded = fmt.Errorf("the client of that name attached again: %w", syscall.ESHUTDOWN)

// ErrClosed ends what a Front held when it was closed, and what comes later.
var ErrClosed = fmt.Errorf("the client's session was closed: %w", syscall.ESHUTDOWN)

// FrontConfig says whose session a [Front] is.
type FrontConfig struct {
	Volume      string // its name
	Size        int64  // bytes
	Incarnation uint64 // of the volume as the client knows it
	Client      string // its name; empty if it has none
	Generation  uint64 // of the named client

	// Complete gets every op back, with the Tag that it was submitted with, in
	// batches, from any goroutine, maybe before Submit returns. It must not wait,
	// nor call the Front. The slice is reused after it returns.
	Complete func([]*mirror.Op)
	// Gone says, by the Tag that an op was submitted with, that nobody waits for it
	// any more: it is not sent again. It must be quick. Nil: somebody always waits.
	Gone func(tag any) bool
	// Park bounds how long ops wait while no primary is reached; then they, and
	// later ones, end with ErrIsolated until one is. 0: for ever.
	Park time.Duration
	// Refused, if set, is told why a node that the Front was routed to does not
	// serve it. It must not wait, nor call the Front. After NotPrimary the Front
	// asks again until it is routed elsewhere; any other reason has ended it, as
	// Fail would.
	Refused func(*Refusal)
	// Dial connects to a node at a Route's Addr. Default: port.DialForward.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Log gets connections coming and going. Default: none.
	Log *slog.Logger
}

// Front is one client's session with a volume, whoever is primary: it numbers the
// client's writes and sends every op to where [Front.Route] says, again if that one
// stops serving before it answered. Its methods may be called concurrently.
//
//	parked --Route, connected--> sent --answered--> given back
//	   ^                           |
//	   +---- its route ended ------+
type Front struct {
	conf    FrontConfig
	session uint64
	over    chan struct{}
	running sync.WaitGroup // remotes
	sending sync.WaitGroup // Submits to a volume of this node

	mu      sync.Mutex
	failed  error   // all is given back with it
	route   Route   // the last one
	leg     *leg    // where ops go; nil: nowhere
	remote  *remote // what connects to route.Addr
	writes  list    // ops with a number that are not given back
	others  list    // ops without one
	number  uint64  // the last one given out
	serial  uint64  // the same for the order of all ops
	free    *entry
	parked  int       // entries that are with nobody
	lost    time.Time // since when no primary is reached; zero: one is
	sweeper *time.Timer
}

// Route says where a volume's primary is. At most one of its fields is set; none
// means that nobody knows.
type Route struct {
	Volume Submitter // it is this node: its own volume
	Addr   string    // HOST:PORT of another
}

// leg is one stay with one primary: its volume, or one connection to it.
type leg struct {
	volume Submitter
	link   *link
}

// NewFront returns a Front without a route: ops wait for one.
func NewFront(conf FrontConfig) *Front {
	f := &Front{conf: conf, lost: time.Now(), over: make(chan struct{})}
	f.conf.defaults()
	var session [8]byte
	rand.Read(session[:])
	f.session = binary.BigEndian.Uint64(session[:])
	f.sweeper = time.AfterFunc(time.Hour, f.sweep)
	f.sweeper.Stop()
	return f
}

// Session is the number under which primaries know the Front.
func (f *Front) Session() uint64 { return f.session }

// Submit starts ops: each comes back through FrontConfig.Complete exactly once. In
// between it is the Front's, Tag, Origin and Data included. The slice is the
// caller's again when Submit returns.
func (f *Front) Submit(ops []*mirror.Op) {
	f.mu.Lock()
	if err := f.refusalLocked(); err != nil {
		f.mu.Unlock()
		for _, op := range ops {
			op.Err = err
		}
		f.conf.Complete(ops)
		return
	}
	to := f.leg
	for _, op := range ops {
		f.enterLocked(op, to)
	}
	if to == nil {
		for _, op := range ops {
			f.parkLocked(op.Tag.(*entry)) //nolint:errcheck // just set
		}
	}
	f.handLocked(to, ops)
}

// handLocked gives ops to a leg, if there is one, and releases mu.
func (f *Front) handLocked(to *leg, ops []*mirror.Op) {
	switch {
	case to == nil || len(ops) == 0:
		f.mu.Unlock()
	case to.link != nil:
		to.link.queue(ops)
		f.mu.Unlock()
	default:
		f.sending.Add(1) // under mu, so that Fail waits for it
		f.mu.Unlock()
		to.volume.Submit(ops)
		f.sending.Done()
	}
}

// refusalLocked is why no op is taken, or nil.
func (f *Front) refusalLocked() error {
	if f.failed == nil && f.lateLocked() {
		return ErrIsolated
	}
	return f.failed
}

// enterLocked makes op the Front's, on its way to a leg, or to none.
func (f *Front) enterLocked(op *mirror.Op, to *leg) {
	e := f.free
	if e == nil {
		e = &entry{front: f}
	} else {
		f.free = e.next
	}
	f.serial++
	e.op, e.tag, e.serial, e.leg = op, op.Tag, f.serial, to
	op.Tag = e
	if op.Kind != mirror.Write && op.Kind != mirror.Zero {
		f.others.append(e)
		return
	}
	f.number++
	e.origin = mirror.Origin{Session: f.session, Number: f.number}
	f.writes.append(e)
	e.origin.Lowest = f.writes.head.origin.Number
	op.Origin = &e.origin
}

// leaveLocked makes an entry's op the client's again.
func (f *Front) leaveLocked(e *entry) {
	l := &f.others
	if e.origin.Number != 0 {
		l = &f.writes
	}
	l.remove(e)
	e.op.Tag, e.op.Origin = e.tag, nil
	*e = entry{front: f, next: f.free}
	f.free = e
}

// Complete implements [Sink]: ops come back from a volume of this node.
func (f *Front) Complete(ops []*mirror.Op) {
	n := 0
	var again []*entry
	f.mu.Lock()
	for i, op := range ops {
		e := op.Tag.(*entry) //nolint:errcheck // the Front set it
		e.op = op            // a copy, if a hung disk still has the other
		if retryable(op.Err) {
			again = append(again, e)
			continue
		}
		f.leaveLocked(e)
		ops[i], ops[n] = ops[n], ops[i]
		n++
	}
	f.mu.Unlock()
	if n > 0 {
		f.conf.Complete(ops[:n])
	}
	if len(again) > 0 {
		f.again(again)
	}
}

// retryable says that an op's outcome does not count: it is for the next primary.
func retryable(err error) bool {
	return err != nil && (errors.Is(err, mirror.ErrDeposed) || errors.Is(err, mirror.ErrClosed))
}

// Drain waits until what was being submitted to a volume of this node has reached it.
// It is for after [Front.Route] to elsewhere.
func (f *Front) Drain() { f.sending.Wait() }

// Fail ends the session: all that waits or is with another node comes back with
// err, what this node's volume still has as soon as that gives it back, and later
// ops at once. When it returns, nothing of the Front is sent or submitted any more.
// It must not be called by
// FrontConfig.Complete or Refused.
func (f *Front) Fail(err error) {
	f.mu.Lock()
	f.failLocked(err)
	f.leaveRouteLocked()
	f.mu.Unlock()
	f.sending.Wait()
	f.running.Wait()
	f.sweep()
}

// failLocked notes why the session has ended, if it had not.
func (f *Front) failLocked(err error) {
	if f.failed != nil {
		return
	}
	f.failed = err
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrSuperseded) {
		close(f.over)
	}
}

// Over is closed when the session has ended with nothing that its client must be told as
// an error: it may go on elsewhere.
func (f *Front) Over() <-chan struct{} { return f.over }

// Close is [Front.Fail] with [ErrClosed].
func (f *Front) Close() { f.Fail(ErrClosed) }

func (c *FrontConfig) defaults() {
	if c.Gone == nil {
		c.Gone = func(any) bool { return false }
	}
	if c.Refused == nil {
		c.Refused = func(*Refusal) {}
	}
	if c.Dial == nil {
		volume := c.Volume
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return dialForward(ctx, addr, volume) }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}
