package sites

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/wanem"
)

// find returns the path between two sites, and whether it is named from its far
// end.
func (s *Sites) find(a, b Site) (p *path, turned bool, err error) {
	for _, p := range s.paths {
		switch {
		case p.ends[forward].site == a && p.ends[back].site == b:
			return p, false, nil
		case p.ends[forward].site == b && p.ends[back].site == a:
			return p, true, nil
		}
	}
	return nil, false, fmt.Errorf("there is no path from site %q to %q: there are sites %v", a, b, s.names)
}

// SetLink makes the path between two sites behave as the link says, whose forward
// direction is from a to b, calibrated: the median round trip meets the wanted one
// as nearly as it can be measured. A path that was cut or slowed is mended. What
// is on its way at the moment may be lost or late. It takes up to 120 round
// trips, and no more than about 0.3 s or fifteen round trips. The other paths go on
// as they are.
func (s *Sites) SetLink(ctx context.Context, a, b Site, link wanem.Link) error {
	if err := link.Validate(); err != nil {
		return err
	}
	p, turned, err := s.find(a, b)
	if err != nil {
		return err
	}
	if turned {
		link.Asymmetry = -link.Asymmetry
	}
	if err := p.setLink(ctx, link); err != nil {
		return fmt.Errorf("set the link of %v to %v: %w", p, link, err)
	}
	return nil
}

// Cut loses everything that goes from one site to another, or with false mends
// that direction. Losing it is silent, as a broken fibre is.
func (s *Sites) Cut(from, to Site, cut bool) error {
	p, way, err := s.direction(from, to)
	if err != nil {
		return err
	}
	if err := p.cutOne(way, cut); err != nil {
		return fmt.Errorf("cut %v: %w", p, err)
	}
	return nil
}

// CutBoth is Cut in both directions.
func (s *Sites) CutBoth(a, b Site, cut bool) error {
	return errors.Join(s.Cut(a, b, cut), s.Cut(b, a, cut))
}

// Isolate cuts a site from all the others, both ways, or with false mends all of
// its paths.
func (s *Sites) Isolate(site Site, cut bool) error {
	if _, err := s.namespace(site); err != nil {
		return err
	}
	var errs []error
	for _, other := range s.names {
		if other != site {
			errs = append(errs, s.CutBoth(site, other, cut))
		}
	}
	return errors.Join(errs...)
}

// Slow makes the delay of a path that many times as long as SetLink said, without
// a calibration: a detour, or the queue of a congested line. A factor of 1 mends
// it. A path of no distance has nothing to multiply and is refused.
func (s *Sites) Slow(a, b Site, factor float64) error {
	p, _, err := s.find(a, b)
	if err != nil {
		return err
	}
	slow := p.wanted
	if slow.RTT() == 0 || factor < 1 {
		return fmt.Errorf("slow %v by %g: use a factor of at least 1, on a link with a distance", p, factor)
	}
	slow.Profile.Equipment += time.Duration((factor - 1) * float64(slow.RTT()) / 2)
	if err := slow.Validate(); err != nil {
		return fmt.Errorf("slow %v by %g: %w", p, factor, err)
	}
	if err := p.set(slow); err != nil {
		return fmt.Errorf("slow %v by %g: %w", p, factor, err)
	}
	return nil
}

// MeasureRTT sends n probes, one after the other, from site a to the kernel of
// site b. It fails if every one is lost.
func (s *Sites) MeasureRTT(ctx context.Context, a, b Site, n int) (RTT, error) {
	p, way, err := s.direction(a, b)
	if err != nil {
		return RTT{}, err
	}
	return p.ping(ctx, way, n, replyTimeout)
}

// Drops is how many packets were lost between two sites since SetLink that should
// not have been. With netem and a lossy link it counts those too that should: the
// kernel does not tell them apart.
func (s *Sites) Drops(a, b Site) (uint64, error) {
	p, _, err := s.find(a, b)
	if err != nil {
		return 0, err
	}
	now, err := p.countDrops()
	return now - p.dropsThen, err
}
