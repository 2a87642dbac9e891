package main

import (
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

// rounds is how often each failure is made: more of them for figures than for a test.
var rounds = flag.Int("rounds", 2, "how often a device's node fails in each way")

func contextWithin(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// TestKernelAttach takes one cluster and its attached device through their lives. It needs
// nbd.ko and root: scripts/vm.sh test ./cmd/lockstep.
func TestKernelAttach(t *testing.T) {
	needKernel(t)
	p := newProcesses(t, "--heartbeat", "1s") // an emulated CPU is late by more than the default
	p.patience = 2 * time.Minute
	p.makeVolume()
	for _, step := range []struct {
		name string
		run  func(*processes)
	}{
		{"a file system", (*processes).fileSystem},
		{"nodes are lost", (*processes).nodesLost},
		{"the agent is killed", (*processes).agentKilled},
		{"the agent is killed while it detaches", (*processes).killedWhileDetaching},
		{"a signal while it is mounted", (*processes).stopWhileMounted},
		{"in a network namespace", (*processes).inNamespace},
		{"another server", (*processes).anotherServer},
		{"the volume grows", (*processes).grows},
		{"the volume is made anew", (*processes).madeAnew},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			q := *p
			q.T = t
			step.run(&q)
		})
		if !ok {
			return
		}
	}
}

func (p *processes) makeVolume() {
	p.Helper()
	p.mustAsk("w", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 64 << 20, On: []string{"a", "b"}, Policy: control.Policy{Lease: time.Second}}, nil)
	p.awaitVolume("w", "in sync", bothInSync)
}

// nodes is attach's --nodes, the first one first.
func (p *processes) nodes(names ...string) []string {
	var all []string
	for _, name := range names {
		all = append(all, "unix:"+p.socket(name))
	}
	return []string{"vol", "--nodes", strings.Join(all, ",")}
}

func (a *attached) attribute(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/block", a.device.Name(), name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// detach runs lockstep detach, which must end as it says.
func (p *processes) detach(a *attached, code int, says string) {
	p.Helper()
	cmd := lockstepCommand(p.T, "detach", a.Device)
	out, _ := cmd.CombinedOutput() // the code says it
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), says) {
		p.Fatalf("lockstep detach: exit code %d, want %d: %s", got, code, out)
	}
}

// mustEnd waits for the agent to end by itself.
func (p *processes) mustEnd(a *attached, code int) {
	p.Helper()
	ended := make(chan struct{})
	go func() { a.Wait(); close(ended) }() //nolint:errcheck // the code says it
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		p.Fatalf("the agent does not end; it said:\n%s", a.Output())
	}
	if got := a.Cmd.ProcessState.ExitCode(); got != code {
		p.Fatalf("the agent's exit code is %d, want %d; it said:\n%s", got, code, a.Output())
	}
}

func (p *processes) fileSystem() {
	a := p.attach(append(p.nodes("a", "b"), "--block-size", "4096")...)
	for name, want := range map[string]string{
		"size": "131072", "ro": "0", "queue/logical_block_size": "4096", "queue/physical_block_size": "4096",
		"queue/rotational": "0", "queue/fua": "1", "queue/write_cache": "write back", "queue/discard_granularity": "4096",
	} {
		if got := a.attribute(p.T, name); got != want {
			p.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := a.attribute(p.T, "queue/discard_max_bytes"); len(got) < 9 {
		p.Errorf("a discard has at most %s bytes", got)
	}
	if a.Size != 64<<20 || a.Block != 4096 || a.Connections != 1 || a.Adopted {
		p.Errorf("it says %+v", a.Ready)
	}
	mnt := p.TempDir()
	mustRun(p.T, "mkfs.ext4", "-q", a.Device)
	mustRun(p.T, "mount", a.Device, mnt)
	unmounted := false
	defer func() {
		if !unmounted {
			unix.Unmount(mnt, unix.MNT_DETACH) //nolint:errcheck // the test has failed
		}
	}()
	mustRun(p.T, "dd", "if=/dev/urandom", "of="+filepath.Join(mnt, "file"), "bs=64k", "count=64", "conv=fsync")
	p.detach(a, int(exitHeld), "mounted on "+mnt)
	mustRun(p.T, "fstrim", mnt)
	mustRun(p.T, "umount", mnt)
	unmounted = true
	mustRun(p.T, "e2fsck", "-fn", a.Device)
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
	p.detach(a, 1, "not attached")
}

// nodesLost takes away the node that the device is with, in every way.
func (p *processes) nodesLost() {
	a := p.attach(p.nodes("a", "b")...)
	l := startLoad(p.T, a.Device)
	l.flows()
	p.awaitVolume("a", "in sync", bothInSync)
	// What a stopped node has not read yet it reads when it wakes, and must not pass on.
	stop := func(on, _ string) { p.signal(on, unix.SIGSTOP) }
	wake := func(on string) {
		l.lap()
		p.signal(on, unix.SIGCONT)
		l.lap()
	}
	for _, round := range []struct {
		what  string
		spare bool // the node is not the primary
		fail  func(on, other string)
		mend  func(on string)
	}{
		{"kill -9", false, func(on, _ string) { p.procs[on].Kill() }, p.start},
		{"SIGTERM", false, func(on, _ string) {
			if err := p.procs[on].Stop(p.Context(), 60*time.Second); err != nil {
				p.Fatal(err)
			}
		}, p.start},
		{"SIGSTOP", false, stop, wake},
		{"SIGSTOP, not the primary,", true, stop, wake},
		{"a handover", false, func(_, other string) {
			p.mustAsk("w", http.MethodPost, "/volumes/vol/handover", api.Handover{To: other}, nil)
		}, func(string) {}},
	} {
		for range *rounds {
			on := a.node()
			other := map[string]string{"a": "b", "b": "a"}[on]
			primary := on
			if round.spare {
				primary = other
			}
			if v := p.awaitVolume("w", "in sync", bothInSync); v.Primary != primary {
				p.mustAsk("w", http.MethodPost, "/volumes/vol/handover", api.Handover{To: primary}, nil)
			}
			l.flows()
			round.fail(on, other)
			longest := l.flows()
			p.awaitVolume("w", "led by "+other, func(v *api.VolumeStatus) bool { return v.Primary == other })
			p.Logf("%s of node %s: the longest write took %v", round.what, on, longest.Round(time.Millisecond))
			round.mend(on)
			p.awaitVolume(other, "in sync", bothInSync)
		}
	}
	l.check()
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
}

func (p *processes) signal(name string, sig syscall.Signal) {
	p.Helper()
	if err := p.procs[name].Cmd.Process.Signal(sig); err != nil {
		p.Fatal(err)
	}
}

// node is the one that the device is with, by what its agent said last.
func (a *attached) node() string {
	addr := a.Server
	for line := range strings.Lines(string(a.Output())) {
		if _, after, ok := strings.Cut(line, "msg=attached "); ok {
			_, after, _ = strings.Cut(after, "addr=")
			addr, _, _ = strings.Cut(strings.TrimSpace(after), " ")
		}
	}
	return strings.TrimSuffix(filepath.Base(addr), ".nbd")
}

// agentKilled has a new agent take over what a dead one left.
func (p *processes) agentKilled() {
	a := p.attach(append(p.nodes("a", "b"), "--connections", "2")...)
	l := startLoad(p.T, a.Device)
	l.flows()
	again := append(p.nodes("b", "a"), "--connections", "2", "--device", a.Device)
	cmd := lockstepCommand(p.T, append([]string{"attach"}, again...)...)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "another lockstep attach") {
		p.Fatalf("a second agent of the device: %v: %s", err, out)
	}
	a.Kill()
	l.flows() // the device needs no agent
	a.args = again
	p.startAgent(a)
	if !a.Adopted {
		p.Errorf("it says %+v, not that it took the device over", a.Ready)
	}
	ctx, cancel := contextWithin(p.T, 60*time.Second)
	defer cancel()
	if err := a.AwaitOutput(ctx, "msg=attached "); err != nil {
		p.Fatal(err)
	}
	l.flows()
	p.procs["b"].Kill() // which the new one is with
	p.Logf("kill -9 of the node after the take-over: the longest write took %v", l.flows().Round(time.Millisecond))
	p.start("b")
	l.check()
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
}

// killedWhileDetaching stops every node, so that what is cached can't be written out, and
// kills the agent over that: the next one must be able to bring the connection.
func (p *processes) killedWhileDetaching() {
	a := p.attach(p.nodes("a", "b")...)
	f, err := os.OpenFile(a.Device, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		p.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"a", "b"} {
		p.signal(name, unix.SIGSTOP)
	}
	want := []byte("cached, and not written out")
	if _, err := f.WriteAt(append(want, make([]byte, blockBytes-len(want))...), 1<<20); err != nil {
		p.Fatal(err)
	}
	if err := a.Cmd.Process.Signal(unix.SIGTERM); err != nil {
		p.Fatal(err)
	}
	time.Sleep(3 * time.Second) // longer than a request may take: its socket is given up
	a.Kill()
	for _, name := range []string{"a", "b"} {
		p.signal(name, unix.SIGCONT)
	}
	p.startAgent(a)
	if !a.Adopted {
		p.Fatalf("it says %+v", a.Ready)
	}
	// What the dead agent began ends now: the device is written out and detached.
	p.mustEnd(a, 0)
	got := make([]byte, len(want))
	if _, err := p.dial("b", "vol").ReadAt(got, 1<<20); err != nil || string(got) != string(want) {
		p.Errorf("%q, %v: what was cached is not in the volume", got, err)
	}
}

// stopWhileMounted has the agent wait for what is mounted.
func (p *processes) stopWhileMounted() {
	a := p.attach(p.nodes("a", "b")...)
	mnt := p.TempDir()
	mustRun(p.T, "mkfs.ext4", "-q", "-F", a.Device)
	mustRun(p.T, "mount", a.Device, mnt)
	if err := a.Cmd.Process.Signal(unix.SIGTERM); err != nil {
		p.Fatal(err)
	}
	ctx, cancel := contextWithin(p.T, 30*time.Second)
	defer cancel()
	if err := a.AwaitOutput(ctx, "it is mounted on "+mnt); err != nil {
		p.Error(err)
	}
	mustRun(p.T, "dd", "if=/dev/zero", "of="+filepath.Join(mnt, "file"), "bs=64k", "count=4", "conv=fsync")
	mustRun(p.T, "umount", mnt)
	p.mustEnd(a, 0)
	if a.device.InUse() {
		p.Error("the device is still attached")
	}
}

// inNamespace attaches where the kernel's interface is not.
func (p *processes) inNamespace() {
	cmd := lockstepCommand(p.T, append([]string{"attach", "--json"}, p.nodes("a", "b")...)...)
	inside := append([]string{"-n", cmd.Path}, cmd.Args[1:]...)
	cmd.Path, cmd.Args = "/usr/bin/unshare", append([]string{"unshare"}, inside...)
	out, err := os.Create(filepath.Join(p.TempDir(), "out"))
	if err != nil {
		p.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(out.Name()) //nolint:errcheck // it is empty then
		if strings.Contains(string(text), `{"device":`) {
			break
		}
		if time.Now().After(end) {
			cmd.Process.Kill() //nolint:errcheck // gone already is fine
			p.Fatalf("it does not attach: %s", text)
		}
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		p.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(out.Name()) //nolint:errcheck // the error says it
		p.Errorf("%v: %s", err, text)
	}
}
