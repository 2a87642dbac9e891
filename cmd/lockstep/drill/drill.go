package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Cluster is what is broken. One goroutine calls it, except Dial.
type Cluster interface {
	// Sites are where the volume can be opened.
	Sites() []string
	// Dial opens the volume at a site.
	Dial(ctx context.Context, site string) (Device, error)
	// Break does what a kind says. What it returns mends it, and is called once.
	Break(ctx context.Context, kind Kind) (mend func(context.Context) error, err error)
	// Settle returns when every node answers and every copy is in sync.
	Settle(ctx context.Context) error
	// Compare returns how many blocks differ between the copies, of a volume that
	// nobody is writing to.
	Compare(ctx context.Context) (int64, error)
}

// Config says what to do.
type Config struct {
	Size    int64         // of the volume, in bytes: whole blocks, some for every writer
	Hold    time.Duration // how long a fault lasts, up to half more
	Think   time.Duration // of each worker between two requests
	Timeout time.Duration // within which all must be well again after a fault
	Log     func(string)  // gets one line at a time, concurrently
}

// Result is what one round came to.
type Result struct {
	Kind         Kind
	Lost         int64 // blocks
	Differing    int64 // blocks
	TwoPrimaries int64 // blocks that a read showed it of
	Stall        time.Duration
	Stalls       map[string]time.Duration // by site
}

// Good says whether the volume kept its promises.
func (r Result) Good() bool { return r.Lost == 0 && r.Differing == 0 && r.TwoPrimaries == 0 }

// Drill is the writers and readers of a cluster. One goroutine uses it.
type Drill struct {
	conf    Config
	cluster Cluster
	model   *model
	sites   []*site
	stop    context.CancelFunc
}

// New starts writers, paused, on a volume that holds only zeroes. Close ends them.
func New(cluster Cluster, conf Config) *Drill {
	names := cluster.Sites()
	ctx, stop := context.WithCancel(context.Background())
	d := &Drill{conf: conf, cluster: cluster, model: newModel(len(names), conf.Size), stop: stop}
	for i, name := range names {
		dial := func(ctx context.Context) (Device, error) { return cluster.Dial(ctx, name) }
		s := &site{name: name, writer: i, model: d.model, report: conf.Log, think: conf.Think,
			write: session{dial: dial}, read: session{dial: dial}}
		d.sites = append(d.sites, s)
		s.start(ctx)
	}
	return d
}

// Close hangs up and waits for the workers.
func (d *Drill) Close() {
	d.stop()
	for _, s := range d.sites {
		s.running.Wait()
	}
}

// before is how long the writers run until the fault, up to three times as long.
const before = 100 * time.Millisecond

// Round breaks and mends once. After an error the cluster is not as it should be,
// and the drill is over.
func (d *Drill) Round(ctx context.Context, kind Kind) (Result, error) {
	r := Result{Kind: kind, Stalls: map[string]time.Duration{}}
	for _, s := range d.sites {
		s.resume()
	}
	broken := d.breakAndMend(ctx, kind)
	for _, s := range d.sites {
		r.Stalls[s.name] = s.stall.end()
	}
	r.Stall = d.count(kind, r.Stalls)
	bounded, cancel := d.bounded(ctx)
	defer cancel()
	for _, s := range d.sites {
		broken = errors.Join(broken, s.pause(bounded))
	}
	if broken != nil {
		return r, fmt.Errorf("round of kind %s: %w", kind, broken)
	}
	bad, err := d.readBack(bounded)
	r.Lost = int64(len(bad))
	for _, block := range d.model.suspects() {
		if _, lost := bad[block]; !lost {
			r.TwoPrimaries++
		}
	}
	if err == nil {
		r.Differing, err = d.cluster.Compare(bounded)
	}
	if err != nil {
		return r, fmt.Errorf("after a round of kind %s: %w", kind, err)
	}
	return r, nil
}

func (d *Drill) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d.conf.Timeout, fmt.Errorf("not within %v", d.conf.Timeout))
}

// count picks the stall that is the volume's: see the package's words.
func (*Drill) count(kind Kind, stalls map[string]time.Duration) time.Duration {
	all := slices.Sorted(maps.Values(stalls))
	if kind.takesASite() {
		return all[0]
	}
	return all[len(all)-1]
}

func (d *Drill) breakAndMend(ctx context.Context, kind Kind) error {
	if err := wait(ctx, before+rand.N(2*before)); err != nil {
		return err
	}
	mend, err := d.cluster.Break(ctx, kind)
	if err != nil {
		return fmt.Errorf("break: %w", err)
	}
	held := wait(ctx, d.conf.Hold+rand.N(d.conf.Hold/2+1))
	// Whoever interrupts a drill gets his processes back as they were, too.
	mending, cancel := d.bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := errors.Join(held, mend(mending)); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	bounded, cancel := d.bounded(ctx)
	defer cancel()
	if err := d.cluster.Settle(bounded); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}

// readBack reads at each site and returns the blocks that are bad at any, with what
// they hold.
func (d *Drill) readBack(ctx context.Context) (map[int64][]byte, error) {
	bad := map[int64][]byte{}
	for _, s := range d.sites {
		some, err := s.readBack(ctx)
		maps.Copy(bad, some)
		if err != nil {
			return bad, err
		}
	}
	for block, holds := range bad {
		d.model.forgive(block, holds)
	}
	return bad, nil
}
