package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"lockstep/mirror/port"
)

const (
	greeting   = 2 * time.Second // for a connection and its handshake
	firstPause = 5 * time.Millisecond
	longPause  = 100 * time.Millisecond
)

func dialForward(ctx context.Context, addr, volume string) (net.Conn, error) {
	return port.DialForward(ctx, addr, volume)
}

// remote is a Front's route to another node: it connects, again and again.
type remote struct {
	front  *Front
	addr   string
	ctx    context.Context
	cancel context.CancelFunc
}

func newRemote(f *Front, addr string) *remote {
	r := &remote{front: f, addr: addr}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *remote) run() {
	log := r.front.conf.Log
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		served, err := r.once()
		if r.ctx.Err() != nil {
			return
		}
		var refusal *Refusal
		if errors.As(err, &refusal) && r.refused(refusal) {
			log.Warn("forwarding ended", "volume", r.front.conf.Volume, "to", r.addr, "err", err)
			return
		}
		log.Debug("forwarding waits", "volume", r.front.conf.Volume, "to", r.addr, "err", err)
		if served {
			pause = firstPause
		}
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// refused says whether the refusal has ended the session.
func (r *remote) refused(why *Refusal) bool {
	f := r.front
	if why.Reason != NotPrimary {
		f.mu.Lock()
		f.failLocked(fmt.Errorf("%w: %w", why, why.outcome()))
		f.leaveRouteLocked()
		f.mu.Unlock()
		f.sweep()
	}
	f.conf.Refused(why)
	return why.Reason != NotPrimary
}

// once makes one connection and returns when it is over; served says that it had
// been welcome.
func (r *remote) once() (served bool, err error) {
	f := r.front
	ctx, cancel := context.WithTimeout(r.ctx, greeting)
	defer cancel()
	nc, err := f.conf.Dial(ctx, r.addr)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	interrupt := context.AfterFunc(r.ctx, func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(greeting)) //nolint:errcheck // a closed socket fails at the first write
	err = greet(nc, &hello{session: f.session, generation: f.conf.Generation, incarnation: f.conf.Incarnation,
		size: uint64(f.conf.Size), client: f.conf.Client})
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if !interrupt() || err != nil {
		return false, err
	}
	k := &link{line: newLine(nc), front: f, ops: map[uint64]*entry{}}
	defer context.AfterFunc(r.ctx, func() { k.hangup(context.Canceled) })()
	return true, k.serve(r)
}
