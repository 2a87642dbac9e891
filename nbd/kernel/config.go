package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"lockstep/nbd"
)

// Config says what an [Agent] attaches, and how.
type Config struct {
	// Servers are where the export is served: all of them serve the same, and the agent
	// goes to the next one when it loses the one that it is with. Their Export counts
	// only if Export is nil.
	Servers []nbd.Endpoint
	// Export, if set, is what the export is called in the stay'th stay of this agent with a
	// server, from 1 on, on that device; first says that no server has let it in yet. All
	// connections of a stay use the same name, and each attempt is another stay. It
	// must be such that the server refuses what is left of earlier stays before it lets a
	// later one in: a request that is sent again must not be overtaken by its first copy.
	Export func(d Device, stay int, first bool) string
	// Owner names who has the device, beside what is attached: an agent that is started
	// again takes over the device of one with the same name that died. No spaces.
	Owner func(d Device) string

	// Device is the one to use; nil is one that a dead agent of this owner left, else the
	// first that is free.
	Device *Device

	Connections int           // sockets, 1 to 16; default 1
	Block       uint32        // block size in bytes: a power of two, 512 to 4096; default 512, or the server's smallest
	Timeout     time.Duration // see Spec; default 1 s if there is an Export, else a minute
	DeadAfter   time.Duration // see Spec; default 24 h
	Stall       time.Duration // that a server may take from the connection until it has let the agent in; default 5 s

	Log *slog.Logger // default: slog.Default()
}

// Bounds and defaults of Config.
const (
	MinBlock       = 512
	MaxBlock       = 4096
	MaxConnections = 16

	DefaultTimeout   = time.Second
	ForeignTimeout   = time.Minute // of a server that is not known to end earlier stays first
	DefaultDeadAfter = 24 * time.Hour
	DefaultStall     = 5 * time.Second
)

func (c *Config) setDefaults() error {
	if c.Connections == 0 {
		c.Connections = 1
	}
	if c.Timeout == 0 && c.Export == nil {
		c.Timeout = ForeignTimeout
	}
	for d, def := range map[*time.Duration]time.Duration{&c.Timeout: DefaultTimeout, &c.DeadAfter: DefaultDeadAfter, &c.Stall: DefaultStall} {
		if *d == 0 {
			*d = def
		}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case len(c.Servers) == 0:
		return errors.New("attach: no server is named")
	case c.Owner == nil:
		return errors.New("attach: nobody owns the device")
	case c.Connections < 1 || c.Connections > MaxConnections:
		return fmt.Errorf("attach: %d connections: use 1 to %d", c.Connections, MaxConnections)
	case c.Block != 0 && (c.Block < MinBlock || c.Block > MaxBlock || c.Block&(c.Block-1) != 0):
		return fmt.Errorf("attach: block size %d: use 512, 1024, 2048 or 4096", c.Block)
	case !wholeSeconds(c.Timeout) || !wholeSeconds(c.DeadAfter):
		return fmt.Errorf("attach: timeouts %v and %v: use whole seconds, at least one (the kernel counts in them)", c.Timeout, c.DeadAfter)
	case c.Stall < 0:
		return fmt.Errorf("attach: stall %v: use a duration above 0", c.Stall)
	}
	return nil
}

// Check says what about the configuration can never work.
func (c Config) Check() error { return c.setDefaults() }

func wholeSeconds(d time.Duration) bool {
	return d >= time.Second && d%time.Second == 0 && d <= math.MaxInt32*time.Millisecond
}

// export is the name to ask a server for.
func (c *Config) export(s nbd.Endpoint, d Device, stay int, first bool) string {
	if c.Export == nil {
		return s.Export
	}
	return c.Export(d, stay, first)
}

// backendMark is what the Backend of a device begins with that an Agent made.
const backendMark = "lockstep "

// identity is what the kernel keeps with a device, as its backend.
type identity struct {
	owner string
	count int    // of its sockets, which stays what it was at CONNECT
	about string // how the server described the export: with another description it is another one
}

func (id identity) String() string {
	return fmt.Sprintf("%s%s %d %q", backendMark, id.owner, id.count, id.about)
}

// parseIdentity undoes String.
func parseIdentity(backend string) (id identity, ok bool) {
	rest, ok := strings.CutPrefix(backend, backendMark)
	if !ok {
		return id, false
	}
	fields := strings.SplitN(rest, " ", 3)
	if len(fields) != 3 {
		return id, false
	}
	count, bad := strconv.Atoi(fields[1])
	about, worse := strconv.Unquote(fields[2])
	return identity{fields[0], count, about}, bad == nil && worse == nil && count >= 1 && count <= MaxConnections
}

// Ours reports whether an Agent attached the device, alive or not.
func (d Device) Ours() bool {
	_, ok := parseIdentity(d.Backend())
	return ok
}
