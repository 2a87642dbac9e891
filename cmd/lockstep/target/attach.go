package target

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

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
	p, err := r.start("attach", cmd)
	if err != nil {
		return sweep.Source{}, err
	}
	device := ""
	err = r.await(ctx, func() error {
		if device = attached(string(p.Output())); device == "" {
			return fmt.Errorf("lockstep attach %s has not said which device it is", uri)
		}
		return nil
	})
	return sweep.Source{Path: device}, err
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
