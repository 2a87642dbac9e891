package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lockstep/cmd/lockstep/child"
	"lockstep/wanem/sweep"
)

// attachTimeout bounds the detaching: what is dirty is written, across the link.
const attachTimeout = 20 * time.Second

// attach makes a volume that is served over NBD a block device, if that is asked for,
// by an agent that lasts until the run is undone.
func (c *Config) attach(ctx context.Context, r *run, uri string) (sweep.Source, error) {
	if !c.Kernel {
		return sweep.Source{URI: uri}, nil
	}
	// The server is one and stays: a slow reply is waited for, not asked for again. But requests must
	// fail some time after it is gone for good: what waits for them can't end before.
	cmd := exec.Command(c.Exe, "attach", uri, "--json", "--timeout=20s", "--dead-timeout=10s")
	// If this process is killed, the agent detaches.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	p, err := r.launch("attach", cmd)
	if err != nil {
		return sweep.Source{}, err
	}
	var made thing
	r.did("attach "+uri, func(ctx context.Context) error { return c.detach(ctx, p, made) })
	err = r.await(ctx, func() error {
		if made.Name = attached(string(p.Output())); made.Name == "" {
			return fmt.Errorf("lockstep attach %s has not said which device it is", uri)
		}
		return nil
	})
	if err == nil {
		made.Identity = backend(made.Name)
		err = c.devices.write([]thing{made})
	}
	return sweep.Source{Path: made.Name}, err
}

// keepDevices opens the record of attached devices, if there will be some, for as long as the run.
func (c *Config) keepDevices(ctx context.Context, life *run) (err error) {
	if !c.Kernel {
		return nil
	}
	c.devices, err = openRecord(life.name+"-attach", func(left thing) error { return c.forceDetach(ctx, left) })
	if err == nil {
		life.did("keep the record", func(context.Context) error { return c.devices.close() })
	}
	return err
}

// detach has the agent detach. One that can't, as nothing can be written any more, leaves
// the device, which then is of no use to anybody.
func (c *Config) detach(ctx context.Context, agent *child.Process, made thing) error {
	err := agent.Stop(ctx, attachTimeout)
	if made.Name == "" {
		return err
	}
	if forced := c.forceDetach(ctx, made); forced != nil {
		return errors.Join(err, forced) // it stays on record
	}
	return errors.Join(err, c.devices.write(nil))
}

// forceDetach disconnects a device if it is still the one that was attached.
func (c *Config) forceDetach(ctx context.Context, made thing) error {
	if made.Identity == "" || released(made) {
		return nil
	}
	_, err := tool(ctx, c.Exe, "detach", "--force", made.Name)
	if err != nil && released(made) { // it was about to go
		return nil
	}
	return err
}

var releaseTimeout = 2 * time.Second // a test is less patient

// released says whether the kernel has let a device go. One that is disconnected has a
// moment for that: the kernel drops its cache first.
func released(made thing) bool {
	for end := time.Now().Add(releaseTimeout); backend(made.Name) == made.Identity; time.Sleep(lookEvery) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// backend is what the kernel keeps of who attached a device; "" if nobody has.
func backend(device string) string {
	text, err := os.ReadFile(filepath.Join(sysBlock(device), "backend"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// attached is the device that an agent's output names; "" if it does not yet.
func attached(output string) string {
	for line := range strings.Lines(output) {
		var said struct {
			Device string `json:"device"`
		}
		// Its log has lines of other kinds, and the last may not be whole.
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &said) == nil && said.Device != "" {
			return said.Device
		}
	}
	return ""
}
