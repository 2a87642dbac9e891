package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lockstep/nbd"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// Config is what the targets of a sweep have in common. All fields are needed unless
// marked optional.
type Config struct {
	Sites   *sites.Sites // at least A and B; lockstep itself does without
	Wire    sweep.Wire   // the link between A and B
	Nodes   []Node       // lockstep's: a, b and Witness
	Exe     string       // this program, to run it as an agent
	Version string       // of this program

	Dir     string // absolute, for the copies of the volumes, which are all files here
	Keep    string // where copies go that are evidence; empty leaves them in Dir. Optional
	Logs    string // for what the processes say
	Scratch string // a directory with a short path, for sockets

	Size   int64  // of a volume in bytes, a multiple of 1 MiB
	Ack    string // lockstep's contract: written or durable
	Kernel bool   // attach what is served over NBD as a block device

	Lease      time.Duration // lockstep volume create --lease. Optional
	Heartbeat  time.Duration // lockstep node --heartbeat. Optional
	Poll       time.Duration // lockstep node --poll. Optional
	Congestion string        // lockstep node --congestion. Optional

	devices *record // of what is attached, where Kernel is set
}

// Target is one kind of mirrored volume. One goroutine calls its methods.
type Target interface {
	sweep.Target
	// Explain adds to an error what the target's processes said last.
	Explain(error) error
	// Close undoes whatever is still done, in reverse order, and removes the copies
	// unless they are to be kept as evidence. It may be called again.
	Close(keep bool) error
}

// driver makes volumes of one kind. One goroutine calls it.
type driver interface {
	facts() sweep.TargetFacts
	wire() sweep.Wire
	// open makes a volume of copies that hold nothing, in sync. What it does it puts on
	// the run, with how to undo it, also when it fails.
	open(context.Context, *run) (volume, error)
}

// volume is one that is open.
type volume struct {
	source sweep.Source
	copies []string // files: the first bytes of each, up to the volume's size, are the volume
	// whole is asked when the volume's user has gone, before it is stopped. It waits until all copies are in
	// sync; a *sweep.DegradedError says that they were not all the time. nil: nothing of
	// the kind can be.
	whole func(context.Context) error
}

// kind is what there is to know of a target before it is used.
type kind struct {
	name  string
	check func() error // says what is missing here, and how to get it
	// prepare makes what lasts as long as the target, and puts it on the run.
	prepare func(context.Context, *Config, *run) (driver, error)
}

var kinds = []kind{
	{"lockstep", checkLockstep, newLockstep},
	{"drbd", checkDRBD, newDRBD},
	{"md-nbd", checkMD, newMD},
	{"qemu-quorum", checkQuorum, newQuorum},
	{"local", checkLocal, newLocal},
}

// Names are the targets there are, lockstep first.
func Names() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Check says what a target needs that this machine lacks, and how to get it.
func Check(name string) error {
	k, err := find(name)
	if err != nil {
		return err
	}
	if err := k.check(); err != nil {
		return fmt.Errorf("target %s: %w", name, err)
	}
	return nil
}

func find(name string) (kind, error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, fmt.Errorf("unknown target %q: use some of %s", name, strings.Join(Names(), ", "))
	}
	return kinds[i], nil
}

// mebibyte is what sizes are a multiple of: no target rounds that.
const mebibyte = 1 << 20

// Open prepares a target. It removes what an earlier run of it that was killed has left
// in the kernel, if that is beyond doubt, and refuses what it may not touch.
func Open(ctx context.Context, name string, c Config) (Target, error) {
	if err := Check(name); err != nil {
		return nil, err
	}
	if c.Size <= 0 || c.Size%mebibyte != 0 {
		return nil, fmt.Errorf("target %s: size %d: use a multiple of 1 MiB", name, c.Size)
	}
	c.Dir = filepath.Join(c.Dir, name)
	k, err := find(name)
	if err == nil {
		err = errors.Join(os.MkdirAll(c.Dir, 0o755), os.MkdirAll(c.Logs, 0o755))
	}
	if err == nil {
		c.Dir, err = filepath.EvalSymlinks(c.Dir) // as the kernel shows it
	}
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	t := &target{name: name, conf: c, life: run{logs: c.Logs, name: name}, now: run{logs: c.Logs, name: name}}
	if t.driver, err = k.prepare(ctx, &t.conf, &t.life); err != nil {
		return nil, errors.Join(fmt.Errorf("target %s: %w", name, t.Explain(err)), t.Close(false))
	}
	return t, nil
}

// target is what all kinds have in common.
type target struct {
	driver
	name string
	conf Config
	life run // what lasts until Close
	now  run // what lasts until Compare
	open volume
}

func (t *target) Name() string             { return t.name }
func (t *target) Wire() sweep.Wire         { return t.wire() }
func (t *target) Source() sweep.Source     { return t.open.source }
func (t *target) Facts() sweep.TargetFacts { return t.facts() }
func (t *target) Explain(err error) error  { return t.now.explain(t.life.explain(err)) }
func (t *target) fail(op string, err error) error {
	return fmt.Errorf("target %s: %s: %w", t.name, op, err)
}

// openTimeout bounds Open: a volume is in sync and served.
const openTimeout = 60 * time.Second

// Open makes a new volume. After an error nothing of it is left.
func (t *target) Open(ctx context.Context) (dev sweep.Device, err error) {
	if err := t.now.undo(ctx); err != nil { // a trial that failed was not compared
		return nil, t.fail("stop the volume before", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no volume after %v", openTimeout))
	defer cancel()
	t.open, err = t.driver.open(ctx, &t.now)
	if err == nil {
		dev, err = openDevice(ctx, t.open.source)
	}
	if err == nil && dev.Size() != t.conf.Size {
		err = errors.Join(fmt.Errorf("it has %d bytes, not %d", dev.Size(), t.conf.Size), dev.Close())
	}
	if err != nil {
		err = t.fail("open", t.now.explain(err)) // these processes are gone after the undoing
		return nil, errors.Join(err, t.now.undo(ctx))
	}
	return dev, nil
}

// openDevice opens a volume as its user would.
func openDevice(ctx context.Context, s sweep.Source) (sweep.Device, error) {
	if s.Path != "" {
		return sweep.OpenDisk(s.Path)
	}
	client, err := nbd.Dial(ctx, s.URI)
	if err != nil {
		return nil, err
	}
	return nbdDevice{client}, nil
}

// nbdDevice is a volume over NBD as the sweep sees it.
type nbdDevice struct{ *nbd.Client }

// Size is in bytes.
func (d nbdDevice) Size() int64 { return int64(d.Client.Size()) }

// Compare stops the volume and compares the copies; of one copy, nothing.
func (t *target) Compare(ctx context.Context) (bytes int64, err error) {
	degraded, err := t.whole(ctx)
	if e := t.now.undo(ctx); e != nil {
		err = errors.Join(err, fmt.Errorf("stop the volume: %w", e))
	}
	if err == nil && len(t.open.copies) > 1 {
		bytes, err = t.conf.Size, CompareFiles(ctx, t.open.copies[0], t.open.copies[1], t.conf.Size)
	}
	if err != nil {
		return 0, t.fail("compare", err)
	}
	return bytes, degraded
}

// whole waits for copies in sync, and tells apart that they were not from that they are
// not.
func (t *target) whole(ctx context.Context) (degraded, err error) {
	if t.open.whole == nil {
		return nil, nil
	}
	err = t.open.whole(ctx)
	if errors.As(err, new(*sweep.DegradedError)) {
		return err, nil
	}
	return nil, err
}

func (t *target) Close(keep bool) error {
	ctx := context.Background() // after Ctrl-C there is still this to do
	err := errors.Join(t.now.undo(ctx), t.life.undo(ctx))
	if keep && t.conf.Keep != "" {
		err = errors.Join(err, t.keepCopies())
	}
	if !keep || t.conf.Keep != "" {
		err = errors.Join(err, os.RemoveAll(t.conf.Dir))
	}
	if err != nil {
		return t.fail("close", err)
	}
	return nil
}

// keepCopies copies the volume's copies to where they last.
func (t *target) keepCopies() error {
	if err := os.MkdirAll(t.conf.Keep, 0o755); err != nil {
		return fmt.Errorf("keep the copies: %w", err)
	}
	for i, from := range t.open.copies {
		to := filepath.Join(t.conf.Keep, fmt.Sprintf("%s-%c", t.name, 'a'+i))
		if _, err := tool(context.Background(), "cp", "--sparse=always", from, to); err != nil {
			return fmt.Errorf("keep the copies: %w", err)
		}
	}
	return nil
}
