package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/wanem/sites"
)

// stream is a number of probes from one site to another.
type stream struct {
	from, to sites.Site
	count    int
	size     int           // of a datagram, in bytes
	interval time.Duration // at least so long between two; 0 is as fast as they go
	wait     time.Duration // for the last ones, after all were sent
	twice    bool          // some may come twice: all being there is not the end
}

// arrival is a probe that came, intact.
type arrival struct {
	number int
	delay  time.Duration // from before it was sent until the kernel had received it
	at     time.Time
}

// outcome is what became of a stream.
type outcome struct {
	sent     int
	took     time.Duration // to send all
	arrivals []arrival     // in the order in which they came
	broken   int           // came damaged
}

// errOverrun is the error where this machine was too slow to receive.
var errOverrun = errors.New("the receive buffer ran over: this machine is too busy to measure (or, in a user namespace, raise sysctl net.core.rmem_max)")

// run sends the stream and returns what became of it.
func (s stream) run(ctx context.Context, all *sites.Sites) (outcome, error) {
	before, err := s.overruns(all)
	if err != nil {
		return outcome{}, err
	}
	o, err := s.exchange(ctx, all)
	if err != nil {
		return o, fmt.Errorf("%d probes from %s to %s: %w", s.count, s.from, s.to, err)
	}
	after, err := s.overruns(all)
	if err == nil && after > before {
		err = errOverrun
	}
	return o, err
}

func (s stream) overruns(all *sites.Sites) (n uint64, err error) {
	err = all.Do(s.to, func() (err error) { n, err = overruns(); return err })
	return n, err
}

// exchange sends and receives, each on a thread of its own.
func (s stream) exchange(ctx context.Context, all *sites.Sites) (outcome, error) {
	out, in, err := s.open(all)
	if err != nil {
		return outcome{}, err
	}
	r := &receiver{stream: s, id: rand.Uint32(), socket: in, seen: make([]bool, s.count)}
	done := make(chan error, 1)
	go func() { done <- r.run() }()
	var o outcome
	err = onOneCPU(func() (err error) { o, err = s.transmit(ctx, r.id, out, in); return err })
	r.until.Store(time.Now().Add(s.wait).UnixNano())
	if err != nil {
		r.until.Store(1)
	}
	if err = errors.Join(err, <-done, out.close(), in.close()); err != nil {
		return o, err
	}
	o.arrivals, o.broken = r.arrivals, r.broken
	return o, nil
}

// onOneCPU calls f on a thread that stays where it is. The kernel carries a packet
// on, and lets its delay end, on the CPU that it was sent from: a sender that is
// moved lets later packets overtake earlier ones, which would be no fault of the link.
func onOneCPU(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("stay on one CPU: %w", err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if allowed.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on one CPU: %w", err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &allowed))
}

func (s stream) open(all *sites.Sites) (out, in *socket, err error) {
	err = all.Do(s.from, func() (err error) { out, err = newSocket(all.Addr(s.from)); return err })
	if err != nil {
		return nil, nil, err
	}
	err = all.Do(s.to, func() (err error) { in, err = newSocket(all.Addr(s.to)); return err })
	if err != nil {
		return nil, nil, errors.Join(err, out.close())
	}
	return out, in, nil
}

func (s stream) transmit(ctx context.Context, id uint32, out, in *socket) (outcome, error) {
	to, err := in.addr()
	if err != nil {
		return outcome{}, err
	}
	b := make([]byte, s.size)
	begin := time.Now()
	for i := range s.count {
		if err := ctx.Err(); err != nil {
			return outcome{}, err
		}
		fill(b, id, uint32(i), time.Now())
		// A qdisc that drops what it was just given says so to the sender, at times.
		if err := out.send(b, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return outcome{}, err
		}
		if s.interval > 0 {
			rest(ctx, s.interval)
		}
	}
	return outcome{sent: s.count, took: time.Since(begin)}, nil
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// receiver collects a stream's arrivals; run is its only goroutine.
type receiver struct {
	stream
	id     uint32
	socket *socket
	until  atomic.Int64 // ns since 1970; 0 as long as probes are sent

	seen     []bool
	distinct int
	arrivals []arrival
	broken   int
}

// run returns when all are there, or when none is that came until its time was up.
func (r *receiver) run() error {
	b := make([]byte, r.size+1) // one more, to see what is too long
	for r.twice || r.distinct+r.broken < r.count {
		n, at, ok, err := r.socket.receive(b)
		switch {
		case err != nil:
			return err
		case ok:
			r.take(b[:n], at)
		case r.over():
			return nil
		}
	}
	return nil
}

func (r *receiver) over() bool {
	until := r.until.Load()
	return until != 0 && time.Now().UnixNano() > until
}

func (r *receiver) take(b []byte, at time.Time) {
	id, number, sent, intact := parse(b, r.size)
	switch {
	case !intact:
		r.broken++
	case id == r.id && int64(number) < int64(r.count):
		if !r.seen[number] {
			r.seen[number] = true
			r.distinct++
		}
		r.arrivals = append(r.arrivals, arrival{int(number), at.Sub(sent), at})
	}
}
