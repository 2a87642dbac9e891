package sites

import (
	"context"
	"errors"
	"fmt"

	"lockstep/wanem/netem"
)

// ErrNoQdisc is the error for what only the netem backend can do.
var ErrNoQdisc = errors.New("only the netem backend can do that")

// Impair makes one direction of the path between two sites do what conf says, as
// it is: nothing is calibrated, and conf can say what a wanem.Link does not
// (bursts of losses, reordering, duplicates, damage). The other direction goes on
// as it is. It lasts until the next SetLink or Slow of the path, or until the zero
// Config, which takes the qdisc away. With the tun backend it is ErrNoQdisc.
func (s *Sites) Impair(ctx context.Context, from, to Site, conf netem.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, way, err := s.direction(from, to)
	if err != nil {
		return err
	}
	if err := p.impair(way, conf); err != nil {
		return fmt.Errorf("impair %s to %s: %w", from, to, err)
	}
	return nil
}

// Qdisc is what the kernel holds for one direction of a path, and what it counted
// there since SetLink or Impair; one with Handle 0 where there is nothing to do.
// With the tun backend it is ErrNoQdisc.
func (s *Sites) Qdisc(from, to Site) (netem.Qdisc, error) {
	p, way, err := s.direction(from, to)
	if err != nil {
		return netem.Qdisc{}, err
	}
	q, err := p.qdisc(way)
	if err != nil {
		return q, fmt.Errorf("look at the qdisc from %s to %s: %w", from, to, err)
	}
	return q, nil
}

// direction is the path between two sites and which way along it leads from one
// to the other.
func (s *Sites) direction(from, to Site) (*path, way, error) {
	p, turned, err := s.find(from, to)
	if turned {
		return p, back, err
	}
	return p, forward, err
}

func (p *path) impair(way way, conf netem.Config) error {
	if p.backend != Netem {
		return ErrNoQdisc
	}
	if err := conf.Validate(); err != nil {
		return err
	}
	// What is drawn for each packet must be drawn for one of a wire's size.
	delayOnly := netem.Config{Delay: conf.Delay, Jitter: conf.Jitter, Limit: conf.Limit, Seed: conf.Seed}
	err := p.ends[way].in.do(func() error { return setSegments(p.ends[way].up, conf == delayOnly) })
	if err != nil {
		return err
	}
	if err := p.wire.do(func() error { return setQdisc(p.ends[way.other()].wire, conf) }); err != nil {
		return err
	}
	p.dropsThen, err = p.countDrops() // a new qdisc counts from 0
	return err
}

func (p *path) qdisc(way way) (q netem.Qdisc, err error) {
	if p.backend != Netem {
		return q, ErrNoQdisc
	}
	err = p.wire.do(func() error {
		index, err := indexOf(p.ends[way.other()].wire)
		if err != nil {
			return err
		}
		q, err = netem.Show(index)
		return err
	})
	return q, err
}
