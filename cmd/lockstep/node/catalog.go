package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"lockstep/cmd/lockstep/export"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
	"lockstep/mirror/host"
	"lockstep/nbd"
)

// catalog offers every volume of the cluster to NBD clients.
type catalog struct{ n *node }

// List implements nbd.Catalog.
func (c *catalog) List() (all []nbd.Export) {
	volumes := c.n.group.State().Volumes
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		all = append(all, nbd.Export{Name: name, Description: "lockstep volume, primary " + volumes[name].Primary})
	}
	return all
}

// Find implements nbd.Catalog.
func (c *catalog) Find(name string) (nbd.Export, error) {
	volumes := c.n.group.State().Volumes
	if name == "" {
		if len(volumes) != 1 {
			return nbd.Export{}, fmt.Errorf("there are %d volumes: say which one, by its name: %w", len(volumes), fs.ErrNotExist)
		}
		for only := range volumes {
			name = only
		}
	}
	volume, who := parseName(name)
	v := volumes[volume]
	switch {
	case v == nil && !c.n.current.Load():
		return nbd.Export{}, errors.New("this node is only starting, and does not know all volumes yet: try again")
	case v == nil:
		return nbd.Export{}, fmt.Errorf("no volume is called %.64q (see lockstep volume list): %w", volume, fs.ErrNotExist)
	}
	who.Incarnation, who.Size = v.Incarnation, v.Size
	return nbd.Export{
		Name: volume, Group: Client(volume, who.Name), Description: identity(v), Size: uint64(v.Size), MinBlock: c.n.minBlock(c.n.host.Seat(volume)),
		Attach: func(ctx context.Context) (nbd.Attachment, error) { return c.n.attach(ctx, v, who) },
	}, nil
}

// identity names what is served for good: another description is another volume, or one
// that may have lost what was acknowledged.
func identity(v *control.Volume) string {
	return fmt.Sprintf("lockstep volume %s, incarnation %d", v.ID, v.Incarnation)
}

// directBlock is what requests are multiples of where a node without a copy knows
// only that the page cache is bypassed.
const directBlock = 512

// minBlock is the smallest request that a volume's copies can do, in bytes; 0 if any.
func (n *node) minBlock(seat *host.Seat) uint32 {
	align := 0
	if seat != nil {
		align = seat.Align()
	}
	if n.conf.Direct {
		align = max(align, directBlock)
	}
	if align <= 1 {
		return 0
	}
	return uint32(align)
}

// attachment is one client's connection to a volume.
type attachment struct {
	export.Export
	front *forward.Front
	seat  *host.Seat
	over  <-chan struct{}
}

// attachTimeout bounds how long a client waits for a node that has only just heard of
// the volume.
const attachTimeout = 5 * time.Second

// attach begins a client's session.
func (n *node) attach(ctx context.Context, v *control.Volume, who host.Client) (a nbd.Attachment, err error) {
	seated := n.retry(ctx, attachTimeout, func() bool {
		seat := n.host.Seat(v.Name)
		if seat == nil {
			err = fmt.Errorf("volume %s is not known at this node yet, which is only starting: try again", v.Name)
			return false
		}
		if seat.ID() != v.ID {
			err = fmt.Errorf("volume %s is being made anew: try again", v.Name)
			return false
		}
		a, err = n.attachTo(ctx, v, seat, who)
		return err == nil || errors.Is(err, host.ErrSuperseded) || errors.Is(err, host.ErrBehind) // the client asks anew
	})
	switch {
	case errors.Is(err, host.ErrSuperseded): // final
		return nil, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	case !seated && err == nil:
		err = context.Cause(ctx)
	}
	return a, err
}

// retry calls do until that succeeds, or the timeout or ctx ends, and says whether it did.
func (n *node) retry(ctx context.Context, timeout time.Duration, do func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if do() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (n *node) attachTo(ctx context.Context, v *control.Volume, seat *host.Seat, who host.Client) (nbd.Attachment, error) {
	a := &attachment{seat: seat}
	a.Data = func(off int64) (start, end int64, ok bool, err error) {
		start, end, ok = seat.Data(off)
		return start, end, ok, nil
	}
	a.Observe = n.metrics.observer(v.Name)
	if resumes(who) {
		a.Outcome = outcome
	}
	front, err := seat.Attach(ctx, who, a.Complete, export.Gone)
	if err != nil {
		return nil, err
	}
	a.front, a.Volume = front, front
	if resumes(who) {
		a.over = front.Over()
	}
	return a, nil
}

// Close implements nbd.Attachment.
func (a *attachment) Close() { a.seat.Detach(a.front) }

// Over implements nbd.Attachment.
func (a *attachment) Over() <-chan struct{} { return a.over }

// dropDeleted hangs up on the clients of volumes that are deleted, until ctx ends.
func (n *node) dropDeleted(ctx context.Context) {
	known := map[string]control.ID{}
	for {
		changed := n.group.Changed()
		volumes := n.group.State().Volumes
		for name, id := range known {
			if v := volumes[name]; v == nil || v.ID != id {
				n.server.DropExport(name)
				n.metrics.forget(name)
				delete(known, name)
			}
		}
		for name, v := range volumes {
			known[name] = v.ID
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
