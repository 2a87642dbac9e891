package host

import (
	"context"
	"errors"
	"fmt"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// Group is what a host needs of the raft group; package control has it.
type Group interface {
	State() *control.State
	Changed() <-chan struct{}
	Do(context.Context, control.Command) (control.Result, error)
	Renew(ctx context.Context, volume string, epoch uint64) error
}

// service is the configuration service of one volume.
type service struct {
	group  Group
	volume string
	node   string
	nodes  []string // by member
}

// errGone: the volume was deleted.
var errGone = errors.New("the volume is not there any more")

// Propose implements mirror.Service.
func (s *service) Propose(ctx context.Context, next mirror.Record) (mirror.Record, error) {
	v, _, err := s.propose(ctx, next, "")
	if err != nil {
		return mirror.Record{}, err
	}
	return s.record(v), nil
}

// record is what v says to a primary that knows the members by the nodes of this service.
func (s *service) record(v *control.Volume) mirror.Record {
	r := recordOf(v)
	for i, node := range s.nodes {
		if node != "" && (i >= len(v.Replicas) || v.Replicas[i].Node != node) {
			r.Gone = r.Gone.With(mirror.ReplicaID(i))
		}
	}
	return r
}

// propose asks for next, and returns what is in force then and whether that is next.
func (s *service) propose(ctx context.Context, next mirror.Record, why string) (in *control.Volume, won bool, err error) {
	stores := make([]control.ID, len(s.nodes))
	for i := range stores {
		stores[i] = control.ID(next.Stores[i])
	}
	c := control.Propose(s.volume, next.Epoch, s.nodes[next.Primary], s.node, slotsOf(next.InSync), stores)
	c.Why, c.Members = why, s.nodes
	r, err := s.group.Do(ctx, c)
	switch {
	case errors.As(err, new(*control.Refused)):
		return nil, false, fmt.Errorf("%w: %w", mirror.ErrRefused, err)
	case err != nil:
		return nil, false, err
	case r.Volume != nil:
		return r.Volume, r.Won, nil
	case r.Refused != "":
		return nil, false, fmt.Errorf("propose epoch %d: %s", next.Epoch, r.Refused)
	}
	return nil, false, errGone
}

// Renew implements mirror.Service.
func (s *service) Renew(ctx context.Context, epoch uint64) error {
	return s.group.Renew(ctx, s.volume, epoch)
}
