package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// attachPoll is how often a connection that waits to be attached looks whether
// its client is still there.
const attachPoll = 50 * time.Millisecond

// errUnattached is wrapped by the error of an export that could not be attached;
// the client may choose another.
var errUnattached = errors.New("the export cannot be used now")

// place is where a connection stands; both empty before it asked for an export.
type place struct{ export, group string }

// attach lets c into transmission with e, and sets its session. It waits for the
// connections of the group whose clients have gone, then for the backend; an error
// that wraps errUnattached leaves c as it was.
func (c *conn) attach(ctx context.Context, e *Export) (Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, c.srv.limits.Handshake)
	defer cancel()
	if err := c.queueUp(ctx, e); err != nil {
		return nil, err
	}
	if e.Attach == nil {
		return e.Backend, nil
	}
	if peerGone(c.raw) { // to enter for nobody may have effects on others
		return nil, io.EOF
	}
	var watch sync.WaitGroup
	watch.Go(func() { c.watch(ctx, cancel) })
	own, err := e.Attach(ctx)
	cancel()
	watch.Wait()
	if err != nil {
		c.stand(place{})
		return nil, fmt.Errorf("%w: %w", errUnattached, err)
	}
	c.own = own
	return own, nil
}

// queueUp takes c's place in the group of e once every connection of the group
// whose client has gone is drained: the client may send again what it had no reply
// for, and the old copy must not land after the new one.
func (c *conn) queueUp(ctx context.Context, e *Export) error {
	tick := time.NewTicker(attachPoll)
	defer tick.Stop()
	for {
		old := c.srv.dying(e.Group)
		if old == nil {
			c.stand(place{export: e.Name, group: e.Group})
			return nil
		}
		select {
		case <-old.ended:
		case <-ctx.Done():
			return c.waitedInVain(ctx)
		case <-tick.C:
			if peerGone(c.raw) {
				return io.EOF
			}
		}
	}
}

func (c *conn) waitedInVain(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: an earlier connection still has requests in flight; try again", errUnattached)
	}
	return errStopped
}

// watch cancels what is done for a client that does not wait for it.
func (c *conn) watch(ctx context.Context, cancel context.CancelFunc) {
	tick := time.NewTicker(attachPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if peerGone(c.raw) {
				cancel()
				return
			}
		}
	}
}

// heed closes c when its backend can do nothing for it any more. The function that it
// returns ends that, and waits for it.
func (c *conn) heed() (stop func()) {
	if c.own == nil || c.own.Over() == nil {
		return func() {}
	}
	served := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-c.own.Over():
			c.hangup()
		case <-served:
		}
	})
	return func() { close(served); watch.Wait() }
}

func (c *conn) stand(p place) {
	c.srv.mu.Lock()
	c.place = p
	c.srv.mu.Unlock()
}

// detach ends c's time with its export: nothing of it is in flight any more.
func (c *conn) detach() {
	if c.own != nil {
		c.own.Close()
	}
	c.stand(place{})
	close(c.ended)
}

// dying returns a connection of the group whose client has gone but which is not
// drained yet, or nil.
func (s *Server) dying(group string) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.place.group == group && (c.draining.Load() || peerGone(c.raw)) {
			return c
		}
	}
	return nil
}

// DropExport hangs up on every client of the export called name: its requests in
// flight are finished and not answered. It does not wait for that. New clients are
// served as Config.Catalog says.
func (s *Server) DropExport(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.place.group != "" && c.place.export == name {
			c.hangup()
		}
	}
}

// partIfIdle lets a client go that has no request in flight and has sent none that is yet
// to be read. Nothing more is received from it: on a unix socket it can't send any more,
// and what it had sent meanwhile is still answered. (TCP does not tell it; what it sends at
// that moment gets no answer.)
func (c *conn) partIfIdle() {
	if c.parting.Load() {
		return
	}
	c.raw.Control(func(fd uintptr) { //nolint:errcheck // closed already is fine
		unread, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err == nil && unread == 0 && c.empty.Load() && c.flow.requests.Load() == 0 {
			c.parting.Store(true)
			unix.Shutdown(int(fd), unix.SHUT_RD) //nolint:errcheck // likewise
		}
	})
}

// hangup closes the socket at once; what is in flight is dropped when the
// backend completes it.
func (c *conn) hangup() {
	c.gone.Store(true)
	c.stopReading()
	c.raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) }) //nolint:errcheck // closed already is fine
	c.nc.SetWriteDeadline(time.Unix(1, 0))                                     //nolint:errcheck // likewise
}
