package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// drbdSetup speaks to the module of DRBD 8.4, which is the kernel's own; the plain
// drbdsetup of today's packages is for DRBD 9.
const drbdSetup = "/lib/drbd/drbdsetup-84"

const (
	drbdMinor = 140 // of A; B has the next: far from what people number theirs
	drbdPort  = 7789
	drbdExtra = 4 * mebibyte // of a disk, for DRBD's metadata at its end
)

func checkDRBD() error {
	errs := []error{needRoot(), needTool("drbdmeta", "drbd-utils"), needModule("drbd"), needModule("loop")}
	if _, err := os.Stat(drbdSetup); err != nil {
		errs = append(errs, fmt.Errorf("%s is not here: install drbd-utils %s", drbdSetup, inVM))
	}
	return errors.Join(errs...)
}

// drbdPair is both ends of a DRBD 8.4 pair, protocol C, in one kernel. Its sockets
// are in the first network namespace whoever asks for them, so its link is a loop.
type drbdPair struct {
	conf    *Config
	loop    *sites.Loop
	record  *record
	version string
	ends    [2]drbdEnd
}

type drbdEnd struct {
	resource    string // also the mark by which the pair is known as lockstep's
	minor       string
	path        string // of the copy
	own, remote string // addresses, as drbdsetup spells them
}

func newDRBD(ctx context.Context, c *Config, life *run) (driver, error) {
	// No handler may run: those of the machine's own configuration are not for this pair.
	if err := errors.Join(loadModule(ctx, "drbd", "usermode_helper=/bin/true"), loadModule(ctx, "loop")); err != nil {
		return nil, err
	}
	version, err := os.ReadFile("/sys/module/drbd/version")
	if err != nil || !strings.HasPrefix(string(version), "8.4.") {
		return nil, fmt.Errorf("the module drbd is version %q (%v), not 8.4: use the kernel's own %s", strings.TrimSpace(string(version)), err, inVM)
	}
	d := &drbdPair{conf: c, version: "DRBD " + strings.TrimSpace(string(version)) + ", " + kernelVersion()}
	d.name(nil) // a loop's addresses are fixed
	if d.record, err = openRecord("drbd", func(t thing) error { return d.removeLeft(ctx, t) }); err != nil {
		return nil, err
	}
	life.did("keep the record", func(context.Context) error { return d.record.close() })
	if d.loop, err = sites.OpenLoop(ctx); err != nil {
		return nil, err
	}
	life.did("make the loop", func(context.Context) error { return d.loop.Close() })
	return d, d.refuse(ctx)
}

// name says what the ends are called and where they are.
func (d *drbdPair) name(loop *sites.Loop) {
	for i, site := range []sites.Site{sites.A, sites.B} {
		other := []sites.Site{sites.B, sites.A}[i]
		d.ends[i] = drbdEnd{resource: "lockstep-" + string(site), minor: strconv.Itoa(drbdMinor + i), path: filepath.Join(d.conf.Dir, string(site)),
			own: drbdAddr(loop.Addr(site), drbdPort+i), remote: drbdAddr(loop.Seen(other), drbdPort+1-i)}
	}
}

func drbdAddr(addr netip.Addr, port int) string { return fmt.Sprintf("ipv4:%v:%d", addr, port) }

// refuse says what of the pair's is in use by somebody else.
func (d *drbdPair) refuse(ctx context.Context) error {
	for i, e := range d.ends {
		disk, err := drbdDisk(ctx, e.resource)
		if err != nil {
			return err
		}
		if disk != "" {
			return fmt.Errorf("there is a DRBD resource %s (disk %s) that no record speaks of: if it is not needed, %s down %s", e.resource, disk, drbdSetup, e.resource)
		}
		if _, err := os.Stat("/sys/block/drbd" + e.minor); err == nil {
			return fmt.Errorf("DRBD minor %s is in use, and is needed here: take its resource down", e.minor)
		}
		addr := netip.AddrPortFrom([]netip.Addr{d.loop.Addr(sites.A), d.loop.Addr(sites.B)}[i], uint16(drbdPort+i))
		l, err := net.Listen("tcp", addr.String())
		if err != nil {
			return fmt.Errorf("a port for DRBD: %w", err)
		}
		l.Close()
	}
	return nil
}

func (d *drbdPair) wire() sweep.Wire { return loopWire{d.loop} }

func (d *drbdPair) open(ctx context.Context, r *run) (volume, error) {
	v := volume{source: sweep.Source{Path: "/dev/drbd" + d.ends[0].minor}, copies: []string{d.ends[0].path, d.ends[1].path}}
	var left []thing
	for _, e := range d.ends {
		left = append(left, thing{e.resource, e.path})
	}
	if err := d.record.write(left); err != nil {
		return v, err
	}
	r.did("record the pair", func(context.Context) error { return d.record.write(nil) })
	for _, e := range d.ends {
		if err := d.up(ctx, r, e); err != nil {
			return v, err
		}
	}
	if err := d.start(ctx, r); err != nil {
		return v, err
	}
	begun, err := d.generation(ctx)
	v.whole = func(ctx context.Context) error { return d.whole(ctx, r, begun) }
	return v, err
}

// generation is the UUID of the primary's data: a new one begins when it goes on
// without the other end.
func (d *drbdPair) generation(ctx context.Context) (string, error) {
	all, err := tool(ctx, drbdSetup, "get-gi", d.ends[0].minor)
	current, _, _ := strings.Cut(strings.TrimSpace(all), ":")
	return current, err
}

// whole waits until both ends are up to date, and says if they were not all the time.
func (d *drbdPair) whole(ctx context.Context, r *run, begun string) error {
	if err := d.awaitState(ctx, r, "dstate", "UpToDate/UpToDate"); err != nil {
		return err
	}
	now, err := d.generation(ctx)
	if err == nil && now != begun {
		err = &sweep.DegradedError{Why: fmt.Sprintf("the other end was lost and came back (generation %s, now %s)", begun, now)}
	}
	return err
}

// commands are those that make one end.
func (d *drbdPair) commands(e drbdEnd, disk string) [][]string {
	return [][]string{
		{drbdSetup, "new-resource", e.resource},
		{drbdSetup, "new-minor", e.resource, e.minor, "0"},
		{drbdSetup, "attach", e.minor, disk, disk, "internal", fmt.Sprintf("--size=%ds", d.conf.Size/512),
			"--al-extents=6007", "--disk-flushes=yes", "--md-flushes=yes"},
		{drbdSetup, "connect", e.resource, e.own, e.remote, "--protocol=C",
			"--max-buffers=8000", "--max-epoch-size=8000", "--sndbuf-size=0", "--rcvbuf-size=0"},
	}
}

func (d *drbdPair) up(ctx context.Context, r *run, e drbdEnd) error {
	disk, err := newDisk(r, e.path, d.conf.Size+drbdExtra)
	if err != nil {
		return err
	}
	meta, err := findTool("drbdmeta")
	if err != nil {
		return err
	}
	if _, err := tool(ctx, meta, "--force", e.minor, "v08", disk, "internal", "create-md"); err != nil {
		return err
	}
	r.did("set "+e.resource+" up", func(ctx context.Context) error { return drbdDown(ctx, e.resource) })
	for _, c := range d.commands(e, disk) {
		if _, err := tool(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// start makes both ends up to date, which they are: both disks hold nothing.
func (d *drbdPair) start(ctx context.Context, r *run) error {
	if err := d.awaitState(ctx, r, "cstate", "Connected"); err != nil {
		return err
	}
	a := d.ends[0].minor
	if _, err := tool(ctx, drbdSetup, "new-current-uuid", a, "--clear-bitmap"); err != nil {
		return err
	}
	if err := d.awaitState(ctx, r, "dstate", "UpToDate/UpToDate"); err != nil {
		return err
	}
	r.did("make A primary", func(ctx context.Context) error {
		return r.await(ctx, func() error { // whoever looks at new devices may have it open
			_, err := tool(ctx, drbdSetup, "secondary", a)
			return err
		})
	})
	_, err := tool(ctx, drbdSetup, "primary", a)
	return err
}

// awaitState waits until both ends are in a state.
func (d *drbdPair) awaitState(ctx context.Context, r *run, what, want string) error {
	return r.await(ctx, func() error {
		for _, e := range d.ends {
			got, err := tool(ctx, drbdSetup, what, e.minor)
			if err != nil {
				return err
			}
			if got = strings.TrimSpace(got); got != want {
				return fmt.Errorf("the %s of %s is %s, not %s", what, e.resource, got, want)
			}
		}
		return nil
	})
}

// drbdDown removes a resource; one that is not there is no error.
func drbdDown(ctx context.Context, resource string) error {
	_, err := tool(ctx, drbdSetup, "down", resource)
	return err
}

// removeLeft removes a resource that is on a copy of ours.
func (d *drbdPair) removeLeft(ctx context.Context, left thing) error {
	disk, err := drbdDisk(ctx, left.Name)
	if err != nil || disk == "" {
		return err
	}
	if got := backingFile(disk); got != left.Identity {
		return fmt.Errorf("DRBD resource %s is on %s (%q), not on %q: it may be somebody's; if it is not, %s down %s",
			left.Name, disk, got, left.Identity, drbdSetup, left.Name)
	}
	// Its link is gone, and so nobody to agree with about the end.
	for _, e := range d.ends {
		if e.resource == left.Name {
			_, err = tool(ctx, drbdSetup, "disconnect", "--force", e.own, e.remote)
		}
	}
	var r run
	return errors.Join(err, r.await(ctx, func() error { return drbdDown(ctx, left.Name) })) // the killed process may not have let go yet
}

// drbdDisk is the disk of a resource: "none" if it has none, "" if there is no such
// resource.
func drbdDisk(ctx context.Context, resource string) (string, error) {
	all, err := tool(ctx, drbdSetup, "show", "all")
	if err != nil {
		return "", err
	}
	return parseDRBDShow(all, resource), nil
}

// parseDRBDShow finds a resource's disk in what drbdsetup-84 show all prints.
func parseDRBDShow(text, resource string) string {
	in, disk := false, ""
	for line := range strings.Lines(text) {
		f := strings.Fields(strings.TrimRight(line, ";\n"))
		switch {
		case len(f) >= 2 && f[0] == "resource":
			if in = f[1] == resource; in {
				disk = "none"
			}
		case in && len(f) == 2 && f[0] == "disk" && f[1] != "{":
			disk = strings.Trim(f[1], `";`)
		}
	}
	return disk
}

func (d *drbdPair) facts() sweep.TargetFacts {
	f := sweep.TargetFacts{Version: d.version, Parameters: d.conf.parameters(), Settings: []sweep.Setting{
		d.conf.disk(),
		{Name: "protocol", Value: "C", Why: "a write is acknowledged when both sites have it"},
		{Name: "al-extents", Value: "6007", Why: "the guide's value for many scattered writes: the activity log then is seldom written"},
		{Name: "max-buffers, max-epoch-size", Value: "8000", Why: "the guide's values for throughput"},
		{Name: "sndbuf-size, rcvbuf-size", Value: "0", Why: "the kernel sizes the windows to the distance, as for the other targets"},
		{Name: "disk-flushes, md-flushes", Value: "yes", Why: "the default, and what a disk with a volatile cache needs; after each write at depth 1 the other end then flushes before it takes the next, which costs nothing on tmpfs"},
		{Name: "flush", Value: "does not wait for the other site",
			Why: "DRBD 8.4 sends a barrier for it and flushes the own disk; the other site flushes later. lockstep's flush waits for both"},
		{Name: "initial sync", Value: "skipped (new-current-uuid --clear-bitmap)", Why: "both disks hold nothing but zeroes, so they are in sync"},
		{Name: "both ends", Value: "in one kernel", Why: "DRBD's sockets are in the first network namespace: the link is a loop from it through a wire and back, delayed as the others' is"},
	}}
	for i, e := range d.ends {
		site, disk := []string{"site a", "site b"}[i], "DISK"
		f.Commands = append(f.Commands, fmt.Sprintf("%s: drbdmeta --force %s v08 %s internal create-md", site, e.minor, disk))
		for _, c := range d.commands(e, disk) {
			f.Commands = append(f.Commands, site+": "+strings.Join(c, " "))
		}
	}
	a := d.ends[0].minor
	f.Commands = append(f.Commands, "site a: "+drbdSetup+" new-current-uuid "+a+" --clear-bitmap", "site a: "+drbdSetup+" primary "+a)
	return f
}
