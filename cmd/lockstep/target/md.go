package target

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

const (
	mdDevice = "/dev/md120" // far from what mdadm itself begins with (127, downwards)
	mdExtra  = 8 * mebibyte // of a disk, for the superblock and the bitmap at its end
)

func checkMD() error {
	return errors.Join(needRoot(), needTool("mdadm", "mdadm"), needTool("nbd-client", "nbd-client"), needTool("nbdkit", "nbdkit"),
		needModule("raid1"), needModule("nbd"), needModule("loop"))
}

// mdArray is an md RAID-1 of a disk at site A and one that the kernel reaches at
// site B over NBD.
type mdArray struct {
	conf    *Config
	record  *record
	version string
	// Programs with their paths, since /usr/sbin is not in every PATH.
	mdadm, client string
}

func newMD(ctx context.Context, c *Config, life *run) (driver, error) {
	d := &mdArray{conf: c}
	var err error
	if d.mdadm, err = findTool("mdadm"); err != nil {
		return nil, err
	}
	if d.client, err = findTool("nbd-client"); err != nil {
		return nil, err
	}
	if err := errors.Join(loadModule(ctx, "raid1"), loadModule(ctx, "nbd"), loadModule(ctx, "loop")); err != nil {
		return nil, err
	}
	d.version = kernelVersion() + "; " + toolVersion(ctx, "nbdkit")
	if d.record, err = openRecord("md-nbd", func(t thing) error { return d.removeLeft(ctx, t) }); err != nil {
		return nil, err
	}
	life.did("keep the record", func(context.Context) error { return d.record.close() })
	if _, err := os.Stat(sysBlock(mdDevice)); err == nil {
		return nil, fmt.Errorf("%s is in use: it is needed here (mdadm --stop %s, if it is not)", mdDevice, mdDevice)
	}
	return d, nil
}

func sysBlock(device string) string { return filepath.Join(sysfs, filepath.Base(device)) }

var sysfs = "/sys/block" // a test has its own

func (d *mdArray) wire() sweep.Wire { return d.conf.Wire }

func (d *mdArray) open(ctx context.Context, r *run) (volume, error) {
	v := volume{source: sweep.Source{Path: mdDevice}, copies: []string{filepath.Join(d.conf.Dir, "a"), filepath.Join(d.conf.Dir, "b")}}
	if err := newFile(v.copies[1], d.conf.Size+mdExtra); err != nil {
		return v, err
	}
	host, err := d.conf.serveAtB(ctx, r, v.copies[1])
	if err != nil {
		return v, err
	}
	remote, err := d.connect(ctx, r, host)
	if err != nil {
		return v, err
	}
	local, err := newDisk(r, v.copies[0], d.conf.Size+mdExtra)
	if err != nil {
		return v, err
	}
	uuid := newUUID()
	if err := d.record.write([]thing{{mdDevice, uuid}}); err != nil {
		return v, err
	}
	r.did("record the array", func(context.Context) error { return d.record.write(nil) })
	r.did("make the array", func(ctx context.Context) error {
		return r.await(ctx, func() error { return d.stop(ctx) }) // whoever looks at new devices may have it open
	})
	v.whole = func(context.Context) error { return mdWhole() }
	_, err = tool(ctx, d.mdadm, d.createArgs(uuid, local, remote)...)
	return v, err
}

// mdWhole says if a device has failed: md does without it from then on.
func mdWhole() error {
	path := filepath.Join(sysBlock(mdDevice), "md/degraded")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("look whether a device failed: %w", err)
	}
	if got := strings.TrimSpace(string(text)); got != "0" {
		return fmt.Errorf("a device of %s has failed (%s is %s): what was written then is not at both sites; dmesg says why", mdDevice, path, got)
	}
	return nil
}

// connect makes the export at B a block device, by a client in A that lasts until the
// run is undone.
func (d *mdArray) connect(ctx context.Context, r *run, host string) (device string, err error) {
	if device, err = freeNBD(); err != nil {
		return "", err
	}
	cmd := d.conf.Sites.Command(context.Background(), sites.A, d.client, clientArgs(host, device)...)
	p, err := r.launch("nbd-client", cmd)
	if err != nil {
		return "", err
	}
	r.did("connect "+device, func(ctx context.Context) error {
		if _, err := tool(ctx, d.client, "-nonetlink", "-d", device); err != nil {
			p.Kill()
			return err
		}
		return p.AwaitEnd(ctx, stopTimeout)
	})
	return device, r.await(ctx, func() error {
		text, err := os.ReadFile(filepath.Join(sysBlock(device), "size"))
		if err == nil && strings.TrimSpace(string(text)) != fmt.Sprint((d.conf.Size+mdExtra)/512) {
			err = fmt.Errorf("%s has %s sectors", device, strings.TrimSpace(string(text)))
		}
		return err
	})
}

// clientArgs do without the netlink interface, which there is only in the first network
// namespace: so the device is gone when its client is.
func clientArgs(host, device string) []string {
	return []string{"-nonetlink", "-nofork", host, nbdPort, device}
}

// freeNBD is a device that nobody has attached: the highest, since people begin with the lowest.
func freeNBD() (string, error) {
	for n := 15; n >= 0; n-- {
		device := fmt.Sprintf("/dev/nbd%d", n)
		if _, err := os.Stat(sysBlock(device)); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(sysBlock(device), "pid")); os.IsNotExist(err) {
			return device, nil
		}
	}
	return "", errors.New("there is no free NBD device: detach one, or load the module nbd with a larger nbds_max")
}

func (d *mdArray) createArgs(uuid, local, remote string) []string {
	return []string{"--create", mdDevice, "--run", "--quiet", "--level=1", "--raid-devices=2", "--metadata=1.0", "--bitmap=internal",
		"--assume-clean", "--name=lockstep", "--uuid=" + uuid, fmt.Sprintf("--size=%dK", d.conf.Size/1024),
		local, "--write-mostly", remote}
}

// newUUID is one as mdadm spells it.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return fmt.Sprintf("%x:%x:%x:%x", b[0:4], b[4:8], b[8:12], b[12:16])
}

// stop stops the array; that there is none is no error.
func (d *mdArray) stop(ctx context.Context) error {
	if _, err := os.Stat(sysBlock(mdDevice)); err != nil {
		return nil
	}
	_, err := tool(ctx, d.mdadm, "--stop", mdDevice)
	return err
}

// removeLeft stops an array that has our UUID.
func (d *mdArray) removeLeft(ctx context.Context, left thing) error {
	if _, err := os.Stat(sysBlock(left.Name)); err != nil {
		return nil
	}
	shown, err := tool(ctx, d.mdadm, "--detail", "--export", left.Name)
	if err != nil {
		return err
	}
	if got := mdUUID(shown); got != left.Identity {
		return fmt.Errorf("%s has UUID %q, not %q: it may be somebody's; if it is not, mdadm --stop %s", left.Name, got, left.Identity, left.Name)
	}
	_, err = tool(ctx, d.mdadm, "--stop", left.Name)
	return err
}

// mdUUID finds the UUID in what mdadm --detail --export prints.
func mdUUID(text string) string {
	for line := range strings.Lines(text) {
		if uuid, ok := strings.CutPrefix(strings.TrimSpace(line), "MD_UUID="); ok {
			return uuid
		}
	}
	return ""
}

func (d *mdArray) facts() sweep.TargetFacts {
	host := d.conf.Sites.Addr(sites.B).String()
	return sweep.TargetFacts{Version: d.version, Parameters: d.conf.parameters(), Settings: []sweep.Setting{
		d.conf.disk(),
		{Name: "level", Value: "RAID-1, two devices", Why: "a write is acknowledged when both have it"},
		{Name: "bitmap", Value: "internal", Why: "what its users have, and what the other mirrors have, too: after a crash not all is copied"},
		{Name: "write-mostly", Value: "the device at site b", Why: "reads are local, as the other mirrors' are; write-behind is off, so writes wait for both"},
		{Name: "metadata", Value: "1.0", Why: "the superblock is at the end, so the volume begins where the copies begin"},
		{Name: "assume-clean", Value: "yes", Why: "both disks hold nothing but zeroes, so they are in sync"},
		{Name: "remote device", Value: "nbd-client in site a, nbdkit file in site b, one connection", Why: "the quickest server of the usual ones"},
		{Name: "flush", Value: "waits for both sites", Why: "md sends it to both devices, and nbdkit's is an fsync"},
	}, Commands: []string{
		serverCommand(host),
		"site a: nbd-client " + strings.Join(clientArgs(host, "/dev/nbd15"), " "),
		"site a: mdadm " + strings.Join(d.createArgs("UUID", "DISK", "/dev/nbd15"), " "),
	}}
}
