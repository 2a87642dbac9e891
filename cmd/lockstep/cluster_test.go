package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/child"
	"lockstep/mirror/control"
	"lockstep/nbd"
)

// processes are the nodes of a cluster on loopback: a and b with data, w a witness.
type processes struct {
	*testing.T
	all   *testing.T // T is a step's, which processes outlive
	dir   string
	addrs map[string]string
	procs map[string]*child.Process

	adminAt, adminTCP string // a node that serves the admin API at an address more

	patience time.Duration // with a cluster that is to become something
	flags    []string      // of nodes, beside what each needs
}

func newProcesses(t *testing.T, flags ...string) *processes {
	p := &processes{T: t, all: t, dir: t.TempDir(), addrs: map[string]string{}, procs: map[string]*child.Process{}, patience: 20 * time.Second, flags: flags}
	for _, name := range []string{"a", "b", "w"} {
		p.addrs[name] = freeAddr(t)
	}
	for name := range p.addrs {
		p.start(name)
	}
	t.Cleanup(func() {
		for _, proc := range p.procs {
			proc.Kill()
		}
		if t.Failed() {
			for name, proc := range p.procs {
				t.Logf("node %s said:\n%s", name, proc.Output())
			}
		}
	})
	return p
}

var hosts atomic.Uint32

// freeAddr is an address that nobody listens on now, each time at another host. As
// connections come from 127.0.0.1, none can take the port before the node does, or while
// it is down.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.3.%d:0", 1+hosts.Add(1)%250))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (p *processes) start(name string) {
	p.Helper()
	cluster := ""
	for _, member := range []string{"a", "b", "w"} {
		cluster += "," + member + "=" + p.addrs[member]
	}
	args := []string{"node", "--name", name, "--data", filepath.Join(p.dir, name), "--listen", p.addrs[name], "--cluster", cluster[1:]}
	if name == p.adminAt {
		args = append(args, "--admin-tcp", p.adminTCP)
	}
	if name == "w" {
		args = append(args, "--witness")
	}
	args = append(args, "--nbd", "unix:"+p.socket(name))
	cmd := lockstepCommand(p.all, append(args, p.flags...)...)
	cmd.Cancel = func() error { return nil } // ended by name
	proc, err := child.Start("node "+name, filepath.Join(p.dir, name+".log"), cmd)
	if err != nil {
		p.Fatal(err)
	}
	p.procs[name] = proc
	ctx, cancel := context.WithTimeout(p.Context(), p.patience)
	defer cancel()
	if err := proc.AwaitOutput(ctx, "node is up"); err != nil {
		p.Fatal(err)
	}
}

func (p *processes) socket(name string) string { return filepath.Join(p.dir, name+".nbd") }

// ask asks a node's admin API.
func (p *processes) ask(name, method, path string, ask, into any) error {
	client := api.TCP(p.addrs[name])
	defer client.Close()
	ctx, cancel := context.WithTimeout(p.Context(), p.patience)
	defer cancel()
	return client.Get(ctx, method, path, ask, into)
}

func (p *processes) mustAsk(name, method, path string, ask, into any) {
	p.Helper()
	if err := p.ask(name, method, path, ask, into); err != nil {
		p.Fatalf("%s %s at %s: %v", method, path, name, err)
	}
}

func (p *processes) dial(name, export string) *nbd.Client {
	p.Helper()
	c, err := nbd.Dial(p.Context(), "nbd+unix:///"+export+"?socket="+p.socket(name))
	if err != nil {
		p.Fatalf("connect to %s at %s: %v", export, name, err)
	}
	p.Cleanup(func() { c.Close() })
	return c
}

// awaitVolume waits until the volume is as ok wants it to be.
func (p *processes) awaitVolume(at, what string, ok func(*api.VolumeStatus) bool) *api.VolumeStatus {
	p.Helper()
	var last api.Status
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(p.patience); time.Now().Before(end); <-tick.C {
		last = api.Status{} // what an answer leaves out must not be the one's before
		if p.ask(at, http.MethodGet, "/status?volume=vol", nil, &last) == nil && ok(&last.Volumes[0]) {
			return &last.Volumes[0]
		}
	}
	p.Fatalf("the volume never was %s: %+v", what, last)
	return nil
}

func bothInSync(v *api.VolumeStatus) bool {
	return len(v.InSync()) == 2 && v.Standing != nil && v.Standing.Ready && v.Standing.Epoch == v.Epoch // on record before there is a primary, too
}

// patient is for a volume whose primary is to be the one that the test made it: a busy
// machine may have a process wait for longer than the default lease.
var patient = control.Policy{Lease: 2 * time.Second}

// TestCluster takes one cluster of processes through its life.
func TestCluster(t *testing.T) {
	p := newProcesses(t)
	p.mustAsk("w", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 16 << 20, On: []string{"a", "b"}, Policy: patient}, nil)
	p.awaitVolume("w", "in sync", bothInSync)
	for _, step := range []struct {
		name string
		run  func(*processes)
	}{
		{"any node serves", (*processes).anyNodeServes},
		{"handover under load", (*processes).handoverUnderLoad},
		{"the primary is killed", (*processes).primaryKilled},
		{"a copy that is not in sync", (*processes).forced},
		{"commands", (*processes).commands},
		{"stop", (*processes).stopAll},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			q := *p
			q.T = t
			step.run(&q)
		})
		if !ok {
			return // what follows needs it
		}
	}
}

func (p *processes) anyNodeServes() {
	a, b := p.dial("a", "vol"), p.dial("b", "") // the only volume is the default
	for i, c := range []*nbd.Client{a, b} {
		want := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		if _, err := c.WriteFlags(want, 1<<20, nbd.FlagFUA); err != nil {
			p.Fatal(err)
		}
		for _, other := range []*nbd.Client{a, b} {
			got := make([]byte, 4096)
			if _, err := other.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
				p.Fatalf("%v: read %d, want %d", err, got[0], want[0])
			}
		}
	}
	// A named client that comes to another node: what its last place has is refused.
	old := p.dial("a", "vol@vm")
	if _, err := old.WriteAt(make([]byte, 512), 0); err != nil {
		p.Fatal(err)
	}
	moved := p.dial("b", "vol@vm")
	if _, err := moved.WriteAt(make([]byte, 512), 0); err != nil {
		p.Fatal(err)
	}
	// It gets an error, and keeps its connection: one that it lost it would make anew, and
	// take the name back.
	for range 2 {
		if _, err := old.WriteAt(make([]byte, 512), 0); !errors.Is(err, syscall.ESHUTDOWN) {
			p.Errorf("the place that a client left, writing for it: %v", err)
		}
	}
	if _, err := moved.WriteAt(make([]byte, 512), 0); err != nil {
		p.Error(err)
	}
	for _, name := range []string{"other", "vol2@vm"} {
		if _, err := nbd.Dial(p.Context(), "nbd+unix:///"+name+"?socket="+p.socket("a")); err == nil {
			p.Errorf("there is an export %s", name)
		}
	}
}

func (p *processes) handoverUnderLoad() {
	w := p.writers()
	for _, to := range []string{"b", "a"} {
		var m api.Moved
		p.mustAsk("w", http.MethodPost, "/volumes/vol/handover", api.Handover{To: to}, &m)
		if m.To != to || m.From == to || m.PauseMS <= 0 {
			p.Errorf("handed over: %+v", m)
		}
		v := p.awaitVolume("a", "led by "+to, func(v *api.VolumeStatus) bool { return v.Primary == to && v.By == to })
		if len(v.InSync()) != 2 {
			p.Errorf("after a handover in sync are %v", v.InSync())
		}
		w.full(p, "a", "b")
	}
	w.stop()
	for name, l := range w.at {
		if w.errs[name] != nil {
			p.Errorf("the client at %s saw %v", name, w.errs[name])
		}
		p.Logf("longest write at %s: %v", name, l.stall)
		l.check(p.T, p.dial("a", "vol"))
		l.check(p.T, p.dial("b", "vol"))
	}
	if err := p.ask("a", http.MethodPost, "/volumes/vol/handover", api.Handover{To: "w"}, nil); err == nil {
		p.Error("a witness was made primary")
	}
}

func (p *processes) primaryKilled() {
	p.awaitVolume("b", "led by a, in sync", func(v *api.VolumeStatus) bool { return v.Primary == "a" && bothInSync(v) })
	w := p.writers()
	p.procs["a"].Kill() // SIGKILL
	w.full(p, "b")
	p.awaitVolume("w", "led by b", func(v *api.VolumeStatus) bool { return v.Primary == "b" && v.By == "b" })
	p.start("a")
	p.awaitVolume("a", "in sync", bothInSync)
	w.full(p, "b")
	w.stop()
	if w.errs["a"] == nil || w.errs["b"] != nil {
		p.Errorf("the client at a saw %v, that at b %v", w.errs["a"], w.errs["b"])
	}
	p.Logf("longest write at b: %v", w.at["b"].stall)
	for _, l := range w.at {
		for _, name := range []string{"a", "b"} {
			l.check(p.T, p.dial(name, "vol"))
		}
	}
}

// forced takes away the copy that is in sync: only an operator's word brings the
// volume back, and who had it open must see an error.
func (p *processes) forced() {
	p.procs["a"].Kill()
	c := p.dial("b", "vol")
	if _, err := c.WriteAt(bytes.Repeat([]byte{9}, 512), 0); err != nil {
		p.Fatal(err)
	}
	p.awaitVolume("b", "without a", func(v *api.VolumeStatus) bool { return len(v.InSync()) == 1 })
	err := p.ask("b", http.MethodPost, "/volumes/vol/failover", api.Failover{To: "a"}, nil)
	if err == nil || !strings.Contains(err.Error(), "lacks writes that were acknowledged") || !strings.Contains(err.Error(), "--accept-data-loss") {
		p.Fatalf("%v, want to be told what is lost", err)
	}
	p.procs["b"].Kill()
	p.start("a")
	p.awaitVolume("a", "without a primary", func(v *api.VolumeStatus) bool { return v.Standing == nil && v.Primary == "b" })
	var m api.Moved
	p.mustAsk("w", http.MethodPost, "/volumes/vol/failover", api.Failover{To: "a", AcceptDataLoss: true}, &m)
	if m.From != "b" || m.To != "a" {
		p.Errorf("%+v", m)
	}
	v := p.awaitVolume("a", "led by a", func(v *api.VolumeStatus) bool { return v.Standing != nil && v.Standing.Ready })
	if v.Incarnation == 0 {
		p.Error("acknowledged writes were given up, and nobody can know")
	}
	p.start("b")
	p.awaitVolume("b", "in sync", bothInSync)
	got := make([]byte, 512)
	if _, err := p.dial("b", "vol").ReadAt(got, 0); err != nil || got[0] == 9 {
		p.Errorf("%v, read %d: the copy that was given up came back", err, got[0])
	}
}

// commands runs what a person types.
func (p *processes) commands() {
	p.awaitVolume("a", "in sync", bothInSync)
	for _, tc := range []struct {
		args string
		code int
		out  []string
	}{
		{"status", 0, []string{"volume vol, 16.0 MiB, primary a", "every copy in sync", "b     in sync"}},
		{"status vol --json", 0, []string{`"primary": "a"`, `"rtt_us"`, `"leader"`}},
		{"status none", 1, []string{"there is no volume"}},
		{"verify vol", 0, []string{"all equal"}},
		{"verify", 2, []string{"which volume?"}},
		{"volume list", 0, []string{"vol     16MiB  a"}},
		{"volume show vol", 0, []string{"incarnation 1", "on loss continue"}},
		{"volume policy vol", 2, []string{"what is to change?"}},
		{"volume create x/y --size 1MiB --on a", 2, []string{"a volume's name"}},
		{"volume create x --size 1MiB --on w", 1, []string{"witness"}},
		{"volume delete vol", 2, []string{"--yes"}},
		{"volume resize vol --size 1MiB", 2, []string{"can only grow"}},
		{"cluster list", 0, []string{"leader", "w     127.0.3.", "witness", "ago"}},
		{"cluster remove a", 1, []string{"vol"}},
		{"handover vol --to a", 1, []string{"leads it already"}},
		{"events vol", 0, []string{"created on a, b", "handed over to b", "b took over from a", "an operator made a the primary"}},
		{"events --json", 0, []string{`"what"`}},
		{"volume policy vol --on-loss suspend", 0, []string{"ack written, failover auto, on isolation suspend, on loss suspend"}},
		{"volume policy vol --on-loss continue", 0, []string{"on loss continue"}},
	} {
		args := append(strings.Fields(tc.args), "--node", p.addrs["w"])
		cmd := lockstepCommand(p.T, args...)
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // else each takes a second, in which the cluster may change
		out, _ := cmd.CombinedOutput()                        // the code says it
		if code := cmd.ProcessState.ExitCode(); code != tc.code {
			p.Errorf("lockstep %s: exit code %d, want %d", tc.args, code, tc.code)
		}
		for _, want := range tc.out {
			if !strings.Contains(string(out), want) {
				p.Errorf("lockstep %s: no %q in:\n%s", tc.args, want, out)
			}
		}
	}
	v := p.awaitVolume("a", "in sync after the policy's change", bothInSync)
	var h api.Health
	p.mustAsk(v.Primary, http.MethodGet, "/healthz", nil, &h)
	if !h.OK {
		p.Errorf("%+v", h)
	}
	p.metrics(v.Primary)
}

func (p *processes) metrics(primary string) {
	other := map[string]string{"a": "b", "b": "a"}[primary]
	c := p.dial(primary, "vol")
	for range 3 { // one of them is a sample
		if _, err := c.WriteAt(make([]byte, 512), 0); err != nil {
			p.Fatal(err)
		}
	}
	response, err := http.Get("http://" + p.addrs[primary] + "/metrics")
	if err != nil {
		p.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		p.Fatal(err)
	}
	for _, want := range []string{
		`lockstep_volume_role{role="leading",volume="vol"} 1`, `lockstep_volume_in_sync_replicas{volume="vol"} 2`,
		`lockstep_replica_left_bytes{node="` + other + `",volume="vol"} 0`, `lockstep_raft_has_leader 1`, `lockstep_volume_suspended{volume="vol"} 0`,
		`lockstep_requests_failed_total{op="write",volume="vol"} 0`,
	} {
		if !strings.Contains(text.String(), want+"\n") {
			p.Errorf("/metrics lacks %s", want)
		}
	}
}

// stopAll ends the nodes as systemd would: the volume is handed over on the way.
func (p *processes) stopAll() {
	first := p.awaitVolume("a", "in sync", bothInSync).Primary
	other := map[string]string{"a": "b", "b": "a"}[first]
	c := p.dial(other, "vol")
	if err := p.procs[first].Stop(p.Context(), 20*time.Second); err != nil {
		p.Fatal(err)
	}
	p.awaitVolume(other, "handed over", func(v *api.VolumeStatus) bool { return v.Primary == other && v.Standing != nil && v.Standing.Ready })
	if _, err := c.WriteAt(make([]byte, 512), 0); err != nil {
		p.Errorf("a client of another node saw %v", err)
	}
	var events []control.Event
	p.mustAsk(other, http.MethodGet, "/events?volume=vol", nil, &events)
	last := events[max(0, len(events)-4):] // it, its taking over, and the set without the one that stopped
	if !slices.ContainsFunc(last, func(e control.Event) bool { return strings.Contains(e.What, first+" handed over to "+other) }) {
		p.Errorf("no handover among the last events: %v", last)
	}
	for _, name := range []string{other, "w"} {
		if err := p.procs[name].Stop(p.Context(), 20*time.Second); err != nil {
			p.Error(err)
		}
	}
	if err := syscall.Access(filepath.Join(p.dir, first, "admin.sock"), 0); err == nil {
		p.Error("a node that was stopped left its socket")
	}
}
