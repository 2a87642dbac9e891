package sim

import (
	"time"

	"lockstep/mirror"
	"lockstep/mirror/wire"
)

// service is the configuration service: it stands for the raft group, as one
// thing that does not fail, but that nodes may not reach. It keeps the
// configuration, and which store each member in it had.
type service struct {
	c     *cluster
	place place
	conf  mirror.Configuration
	by    uint64    // the proposal that made it so
	ids   []wire.ID // of the members' stores; zero: not known
	lease time.Duration
	slow  time.Duration // until then proposals take long
}

// proposal is one attempt to change the configuration.
type proposal struct {
	id   uint64
	conf mirror.Configuration
	ids  []wire.ID
}

// verdict is what is in force, and by which proposal.
type verdict struct {
	conf mirror.Configuration
	by   uint64
	ids  []wire.ID
}

func (s *service) inForce() verdict {
	return verdict{s.conf, s.by, append([]wire.ID(nil), s.ids...)}
}

// propose is the compare-and-swap. Who wants to take over from a primary that is
// alone waits until that one's lease is over.
func (s *service) propose(p proposal) verdict {
	waits := p.conf.Primary != s.conf.Primary && s.conf.InSync.Len() == 1 && s.c.now < s.lease
	if p.conf.Epoch == s.conf.Epoch+1 && !waits {
		s.conf, s.by = p.conf, p.id
		copy(s.ids, p.ids)
		s.c.trace("service", "%v", p.conf)
		s.c.spring(ambushConf)
	}
	return s.inForce()
}

// extend gives a primary its lease, if it is the one in force. The service's own
// promise is longer by more than clocks drift apart.
func (s *service) extend(from mirror.ReplicaID) (granted bool) {
	if granted = s.conf.Primary == from; granted {
		s.lease = s.c.now + leaseTime + leaseTime/8
	}
	return granted
}

// ask sends a request to the service and gives its answer to done, if both
// arrive: once at most.
func (n *node) ask(request func(*service) verdict, done func(verdict)) {
	n.askFor(0, 0, request, done)
}

// askCommitted is ask for what goes through a log, which may take long: before it is
// done, or before the answer is there.
func (n *node) askCommitted(request func(*service) verdict, done func(verdict)) {
	d := n.c.service.commitTime()
	if n.c.net.rand.IntN(2) == 0 {
		n.askFor(d, 0, request, done)
	} else {
		n.askFor(0, d, request, done)
	}
}

func (n *node) askFor(before, after time.Duration, request func(*service) verdict, done func(verdict)) {
	s, life, answered := n.c.service, n.life, false
	n.c.net.datagram(n.place(), s.place, func() {
		n.c.after(before, func() {
			v := request(s)
			n.c.after(after, func() {
				n.c.net.datagram(s.place, n.place(), func() {
					if n.life == life && !answered {
						answered = true
						done(v)
					}
				})
			})
		})
	})
}

// commitTime is how long a proposal takes.
func (s *service) commitTime() time.Duration {
	if s.c.now >= s.slow {
		return 0
	}
	return time.Duration(s.c.net.rand.Int64N(int64(time.Second)))
}
