package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/nbd"
)

// controls is what an Agent asks of the kernel: [Netlink], or a test's.
type controls interface {
	Connect(index int, spec *Spec, fds []int) error
	Reconfigure(index int, backend string, change Change) error
	Disconnect(index int) error
}

// Agent keeps one device connected to whichever server serves its export. The package's
// page draws its states. One goroutine uses it: that of [Agent.Run].
type Agent struct {
	conf   Config
	kernel controls
	dev    Device
	lock   *os.File
	log    *slog.Logger

	path     *path // nil: lost
	timer    timer
	next     int // the server to try first
	stay     int // the last one that was tried
	owner    string
	backend  string
	about    string // how the server described the export when it was first attached
	size     uint64 // bytes
	flags    nbd.TransmissionFlags
	said     time.Time // the last complaint
	since    time.Time
	adopted  bool
	admitted bool // a server let this agent in
	proved   bool // the servers had the export at least once
}

// Reasons for which a device ends by itself.
var (
	// ErrReplaced: the servers have another export under this one's name.
	ErrReplaced = errors.New("what is served under this name now is not what was attached")
	// ErrGone: the servers have no such export any more, or not for this client.
	ErrGone = errors.New("the export is gone")
)

// Between two rounds of all servers.
const (
	firstPause = 20 * time.Millisecond
	longPause  = time.Second
)

// takeTimeout bounds how long the kernel may need to give up old sockets: it waits for the
// server's end, if a dead agent left them.
const takeTimeout = 5 * time.Second

// Attach makes a device of what the servers serve, waiting until one answers, and
// returns the Agent that keeps it. ctx ends the waiting. An export that no server has, or
// that does not fit, is an error at once. A device that a dead agent of the same owner left
// is taken over.
func Attach(ctx context.Context, kernel controls, conf Config) (*Agent, error) {
	if err := conf.setDefaults(); err != nil {
		return nil, err
	}
	if conf.Device != nil {
		return attachAt(ctx, kernel, conf, *conf.Device)
	}
	if a, err := attachOwn(ctx, kernel, conf); a != nil || err != nil {
		return a, err
	}
	for i := 0; ; i++ {
		d := Device{i}
		if d.InUse() {
			continue
		}
		a, err := attachAt(ctx, kernel, conf, d)
		if errors.Is(err, errTaken) { // between the look and the attempt
			continue
		}
		return a, err
	}
}

// attachOwn takes over a device that a dead agent of the same owner left, if there is one:
// an agent that is started again must not leave behind what is mounted. One whose agent
// lives is another device of the same machine, unless it has the very same owner.
func attachOwn(ctx context.Context, kernel controls, conf Config) (*Agent, error) {
	for _, d := range Devices() {
		id, ok := parseIdentity(d.Backend())
		if !ok || id.owner != conf.Owner(d) {
			continue
		}
		a, err := attachAt(ctx, kernel, conf, d)
		switch {
		case err == nil:
			return a, nil
		case !errors.Is(err, errTaken):
			return nil, err
		case conf.Owner(d) == conf.Owner(Device{d.Index + 1}): // its name is not the device's
			return nil, fmt.Errorf("%s has that name already: %w", d.Path(), err)
		}
	}
	return nil, nil
}

// errTaken: somebody else has the device.
var errTaken = errors.New("it is in use")

func attachAt(ctx context.Context, kernel controls, conf Config, d Device) (*Agent, error) {
	lock, err := lockDevice(d)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		conf: conf, kernel: kernel, dev: d, lock: lock, log: conf.Log.With("device", d.Path()), owner: conf.Owner(d),
		since: time.Now(), timer: timer{least: conf.Timeout, timeout: conf.Timeout},
	}
	if d.InUse() {
		err = a.adopt()
	} else {
		err = a.connect(ctx)
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("attach %s: %w", d.Path(), err)
	}
	return a, nil
}

// adopt takes over a device whose agent died: its sockets, if they work, are the
// kernel's alone, until the new stay ends them.
func (a *Agent) adopt() error {
	a.backend = a.dev.Backend()
	id, ok := parseIdentity(a.backend)
	switch {
	case !ok:
		return fmt.Errorf("%w, and not by lockstep: choose another device", errTaken)
	case id.owner != a.owner:
		return fmt.Errorf("%w: it is %s, and this is %s; detach it first, or choose another device", errTaken, id.owner, a.owner)
	case a.gone():
		return fmt.Errorf("%w: it was disconnected, and who used it before still has it open", errTaken)
	}
	a.about, a.size, a.adopted = id.about, a.dev.Size(), true
	if id.count != a.conf.Connections {
		a.log.Warn("the device keeps the number of connections that it was made with", "has", id.count, "asked_for", a.conf.Connections)
		a.conf.Connections = id.count
	}
	a.log.Info("taking over the device of an agent that died")
	return nil
}

// connect makes the device.
func (a *Agent) connect(ctx context.Context) error {
	p, err := a.reach(ctx)
	if err != nil {
		return err
	}
	block := max(a.conf.Block, p.info.MinBlock, MinBlock)
	a.about, a.size, a.flags = p.info.Description, p.info.Size/uint64(block)*uint64(block), p.info.Flags
	a.backend = identity{a.owner, a.conf.Connections, a.about}.String()
	spec := &Spec{Size: a.size, Block: block, Flags: uint16(a.flags), Timeout: a.conf.Timeout, DeadAfter: a.conf.DeadAfter, Backend: a.backend}
	switch err := a.kernel.Connect(a.dev.Index, spec, p.fds); {
	case errors.Is(err, unix.EBUSY):
		p.shut()
		p.close()
		return errTaken
	case err != nil:
		p.shut()
		p.close()
		return fmt.Errorf("hand the sockets to the kernel: %w", err)
	}
	a.path, a.proved = p, true
	a.timer.attached(time.Now())
	a.log.Info("attached", "addr", p.where())
	return nil
}

// close gives up the lock; the device stays.
func (a *Agent) close() {
	if a.path != nil {
		a.path.close()
	}
	a.lock.Close()
}

// Ready tells of the device as it is now.
type Ready struct {
	Device      string `json:"device"`
	Size        uint64 `json:"size"`  // bytes
	Block       uint32 `json:"block"` // bytes
	Server      string `json:"server,omitempty"`
	Connections int    `json:"connections"`
	Adopted     bool   `json:"adopted"` // a dead agent left it
}

// Ready describes the device. It must not be called while Run runs.
func (a *Agent) Ready() Ready {
	r := Ready{Device: a.dev.Path(), Size: a.size, Block: a.dev.block(), Connections: a.conf.Connections, Adopted: a.adopted}
	if a.path != nil {
		r.Server = a.path.where()
	}
	return r
}

// Device is the agent's.
func (a *Agent) Device() Device { return a.dev }

// Run keeps the device connected until ctx ends, which leaves the device as it is, or
// somebody disconnects it: both are no error. An error says why the device was ended:
// whoever uses it sees I/O errors.
func (a *Agent) Run(ctx context.Context) error {
	defer a.close()
	for {
		if a.path != nil && !a.path.watch(ctx) {
			return nil
		}
		if a.path != nil {
			a.lose()
		}
		switch err := a.recover(ctx); {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errDisconnected) || a.gone(): // or who has it now is somebody else
			a.log.Info("the device was disconnected")
			return nil
		default:
			a.log.Error("the device is ended: who uses it sees errors", "err", err)
			return errors.Join(fmt.Errorf("keep %s attached: %w", a.dev.Path(), err), a.kernel.Disconnect(a.dev.Index))
		}
	}
}

// lose gives the path up: nothing is sent by it any more.
func (a *Agent) lose() {
	a.path.shut()
	a.path.close()
	a.since = time.Now()
	a.timer.lost(a.since)
	from := a.path.where()
	a.path = nil
	if !a.gone() { // else that is why
		a.log.Warn("lost the server: requests wait", "addr", from)
	}
	if a.timer.unserved() {
		a.log.Warn("servers let this device in and then do not reply in time: is the volume served? (lockstep status says why not; a volume that is slower than the request timeout wants a longer one)",
			"lost_in_a_row", a.timer.short)
	}
}

// errDisconnected: somebody ended the device.
var errDisconnected = errors.New("the device was disconnected")

// recover finds another path, and gives it to the kernel. An error is final.
func (a *Agent) recover(ctx context.Context) error {
	for {
		p, err := a.reach(ctx)
		if err != nil {
			return err
		}
		err = a.hand(ctx, p)
		if err == nil {
			a.path, a.said, a.proved = p, time.Time{}, true
			a.timer.attached(time.Now())
			a.log.Info("attached", "addr", p.where(), "after", time.Since(a.since).Round(time.Millisecond), "timeout_of_new_requests", a.timer.timeout)
			if a.conf.Export == nil {
				a.log.Warn("this server is not known to have ended what the earlier connection asked for: a write that it was slow over may land on newer data")
			}
			a.grow(p.info.Size)
			return nil
		}
		p.shut()
		p.close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.complain(err)
	}
}

// gone says that the device is not the agent's any more. Only the kernel's own word
// counts: who still holds a disconnected device open keeps it in sysfs.
func (a *Agent) gone() bool {
	return errors.Is(a.kernel.Reconfigure(a.dev.Index, a.backend, Change{}), unix.EINVAL)
}

// hand gives a path's sockets to the kernel, which takes each when an old one is dead.
func (a *Agent) hand(ctx context.Context, p *path) error {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	for pause := time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 100*time.Millisecond) {
		left := p.left()
		if len(left) == 0 {
			return nil
		}
		if err := a.kernel.Reconfigure(a.dev.Index, a.backend, Change{Timeout: a.timer.timeout, Sockets: left}); err != nil {
			return fmt.Errorf("hand the sockets to the kernel: %w", err)
		}
		if len(p.left()) > 0 && p.lost(pause) {
			return errors.New("the server closed the connection before the kernel took it")
		}
	}
	return errors.New("the kernel still uses the old connections")
}

// grow makes the device as large as the export has become.
func (a *Agent) grow(size uint64) {
	block := uint64(max(a.dev.block(), MinBlock))
	if size = size / block * block; size <= a.size {
		return
	}
	if err := a.kernel.Reconfigure(a.dev.Index, a.backend, Change{Size: size}); err != nil {
		a.log.Error("the device is smaller than its export has become", "err", err)
		return
	}
	a.log.Info("the device has grown", "from_bytes", a.size, "to_bytes", size)
	a.size = size
}

// quiet is how long nothing is complained of after a complaint: an outage can last.
const quiet = 10 * time.Second

// complain logs why there is no path yet.
func (a *Agent) complain(err error) {
	if err == nil || time.Since(a.said) < quiet {
		return
	}
	a.said = time.Now()
	a.log.Warn("not attached yet", "err", err)
}
