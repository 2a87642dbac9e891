package tun

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Spin is how long before a packet is due its thread stops sleeping: about a
	// wake-up's latency on a virtual machine, so that little of it is spun away.
	Spin = 60 * time.Microsecond
	// MinDelay is the smallest one-way delay that is worth asking for, 19 km of
	// fibre. Below it the wake-up that a packet's arrival costs is the delay.
	MinDelay = 95 * time.Microsecond
	// MaxQueue bounds the memory of what is held back in one direction, in bytes:
	// 1 Gbit/s for half a second.
	MaxQueue = 64 << 20

	maxPacket = 10 + 65536 // virtio header and the largest super-packet
)

// Config is what one direction does to packets. The zero value holds nothing
// back, loses nothing and has no limit.
type Config struct {
	Delay    time.Duration // a wanted delay of at least MinDelay, less what calibration takes off
	Jitter   time.Duration // standard deviation of the delay; order is kept
	Loss     float64       // probability, 0 to 1, for each packet or super-packet
	RateBits uint64        // bits per second; 0 is unlimited
	Cut      bool          // lose everything
	Seed     uint64        // of jitter and loss
}

func (c Config) validate() error {
	switch {
	case c.Cut:
		return nil
	case c.Delay < 0:
		return fmt.Errorf("a delay of %v", c.Delay)
	case c.Loss < 0 || c.Loss > 1:
		return fmt.Errorf("loss %v is not a probability", c.Loss)
	}
	return nil
}

// Stats counts what one direction did since it was started.
type Stats struct {
	Packets uint64 // delivered
	Lost    uint64 // as asked for by Loss or Cut
	Drops   uint64 // not asked for: queue full, or refused by the other device
}

// Relay carries packets between two devices, both ways.
type Relay struct {
	forward, back *direction
	stop          int // eventfd: readable when the relay is to end
	running       sync.WaitGroup
}

// Start carries packets from a to b as forward says and from b to a as back
// says, until Close. The devices stay the caller's to close, after the relay.
func Start(a, b *Device, forward, back Config) (*Relay, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start relay: eventfd: %w", err)
	}
	r := &Relay{stop: stop, forward: &direction{from: a, to: b}, back: &direction{from: b, to: a}}
	if err := r.Set(forward, back); err != nil {
		unix.Close(stop)
		return nil, err
	}
	for _, d := range []*direction{r.forward, r.back} {
		r.running.Go(func() { d.run(stop) })
	}
	return r, nil
}

// Set changes what both directions do to packets that arrive from now on. It may
// be called at any time, concurrently too.
func (r *Relay) Set(forward, back Config) error {
	for _, c := range []Config{forward, back} {
		if err := c.validate(); err != nil {
			return fmt.Errorf("set link: %w", err)
		}
	}
	r.forward.conf.Store(&forward)
	r.back.conf.Store(&back)
	return nil
}

// Stats returns both directions' counters.
func (r *Relay) Stats() (forward, back Stats) { return r.forward.stats(), r.back.stats() }

// Err returns why a direction ended by itself, if one did.
func (r *Relay) Err() error {
	for _, d := range []*direction{r.forward, r.back} {
		if err := d.err.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// Close ends the relay and returns when its goroutines are gone. What was held
// back is lost.
func (r *Relay) Close() error {
	r.forward.stopped.Store(true)
	r.back.stopped.Store(true)
	unix.Write(r.stop, []byte{0, 0, 0, 0, 0, 0, 0, 1}) //nolint:errcheck // can't fail: the counter is 0
	r.running.Wait()
	return unix.Close(r.stop)
}

// direction is one way through the relay. Only its goroutine uses the queue.
type direction struct {
	from, to *Device
	conf     atomic.Pointer[Config]
	err      atomic.Pointer[error]
	queue    queue
	fate     fate

	stopped              atomic.Bool
	packets, lost, drops atomic.Uint64
}

func (d *direction) stats() Stats {
	return Stats{Packets: d.packets.Load(), Lost: d.lost.Load(), Drops: d.drops.Load()}
}

// run keeps its thread for itself, with a timer slack that lets it wake on time.
// The thread is given back as it was: one that ended would take the children with
// it that it started (PDEATHSIG).
func (d *direction) run(stop int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)       //nolint:errcheck // late is calibrated away
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) //nolint:errcheck // 0 is the default
	for !d.stopped.Load() {                              // traffic that never pauses never sleeps either
		now := time.Now()
		d.deliver(now)
		read, err := d.take(now)
		if err != nil {
			d.err.Store(&err)
			return
		}
		if read {
			continue
		}
		wait, any := d.queue.wait(time.Now())
		if any && wait <= Spin {
			continue
		}
		if stopped := d.sleep(stop, wait-Spin, any); stopped {
			return
		}
	}
}

// deliver writes what is due.
func (d *direction) deliver(now time.Time) {
	for {
		p := d.queue.due(now)
		if p == nil {
			return
		}
		if d.to.write(p) {
			d.packets.Add(1)
		} else {
			d.drops.Add(1)
		}
		d.queue.pop()
	}
}

// take reads one packet, if there is one, and decides its fate.
func (d *direction) take(now time.Time) (bool, error) {
	buf := d.queue.space()
	n, ok, err := d.from.read(buf)
	if !ok {
		return false, err
	}
	c := d.conf.Load()
	if c.Cut || d.fate.lost(c) {
		d.lost.Add(1)
		return true, nil
	}
	if !d.queue.push(n, d.fate.due(c, now, n)) {
		d.drops.Add(1)
	}
	return true, nil
}

// sleep waits for a packet or for the timeout and says whether to stop.
func (d *direction) sleep(stop int, timeout time.Duration, bounded bool) bool {
	fds := []unix.PollFd{{Fd: int32(d.from.fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	var ts *unix.Timespec
	if bounded {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	unix.Ppoll(fds, ts, nil) //nolint:errcheck // EINTR is a wake-up like any other
	return fds[1].Revents != 0
}
