package node

import (
	"context"
	"time"

	"lockstep/mirror"
)

// timing is where the time of one write of a volume went.
type timing struct {
	volume string
	mirror.Timing
}

// timingQueue is how many timings may wait; more are dropped, each is but a sample.
const timingQueue = 256

// rttAge is how long a round trip that was looked up is used.
const rttAge = time.Second

// timed takes a volume's timings to observeTimings. It never waits: a volume calls it
// with its lock held.
func (n *node) timed(volume string) func(mirror.Timing) {
	return func(t mirror.Timing) {
		select {
		case n.timings <- timing{volume, t}:
		default:
		}
	}
}

// line is what is known of the way to a volume's replicas.
type line struct {
	nodes [mirror.MaxReplicas]string
	rtt   [mirror.MaxReplicas]time.Duration
	at    time.Time
}

// observeTimings counts what timed brings, until ctx ends. The wire's part of an
// acknowledgement is the round trip of a heartbeat: what is left is the replica's.
func (n *node) observeTimings(ctx context.Context) {
	lines := map[string]*line{}
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-n.timings:
			l := lines[t.volume]
			if l == nil || time.Since(l.at) > rttAge {
				l = n.line(t.volume)
				lines[t.volume] = l
			}
			n.metrics.writes.observe(t, l)
		}
	}
}

func (n *node) line(volume string) *line {
	l := &line{at: time.Now()}
	seat := n.host.Seat(volume)
	if seat == nil {
		return l
	}
	v := seat.Record()
	s, ok := seat.Status()
	if v == nil || !ok {
		return l
	}
	for _, r := range s.Replicas {
		l.nodes[r.Member] = nodeOf(v, r.Member)
		l.rtt[r.Member] = time.Duration(r.RTT * float64(time.Microsecond))
	}
	return l
}

// observe counts a write's parts.
func (w *writeParts) observe(t timing, l *line) {
	w.local.WithLabelValues(t.volume).Observe(t.Local.Seconds())
	w.total.WithLabelValues(t.volume).Observe(t.Total.Seconds())
	for i, ack := range t.Remote {
		if ack == 0 || l.rtt[i] == 0 {
			continue
		}
		wire := min(ack, l.rtt[i])
		w.wire.WithLabelValues(t.volume, l.nodes[i]).Observe(wire.Seconds())
		w.remote.WithLabelValues(t.volume, l.nodes[i]).Observe((ack - wire).Seconds())
	}
}
