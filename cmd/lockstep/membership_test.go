package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lockstep/cmd/lockstep/api"
)

// TestMembership changes who takes part in a cluster of processes while it is used.
func TestMembership(t *testing.T) {
	p := newProcesses(t)
	p.mustAsk("a", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 16 << 20, On: []string{"a", "b"}, Policy: patient}, nil)
	p.awaitVolume("a", "in sync", bothInSync)
	w := p.writers()
	for _, step := range []struct {
		name string
		run  func(*processes)
	}{
		{"a node joins", (*processes).nodeJoins},
		{"it takes a dead one's place", (*processes).nodeReplaced},
		{"the volume grows", (*processes).volumeGrows},
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
	w.full(p, "a")
	w.stop()
	if w.errs["a"] != nil {
		t.Errorf("the client at a saw %v", w.errs["a"])
	}
	for _, name := range []string{"a", "c"} {
		w.at["a"].check(t, p.dial(name, "vol"))
		w.at["b"].check(t, p.dial(name, "vol"))
	}
	t.Run("other people's clients", func(t *testing.T) { p.otherClients(t) })
	t.Run("the volume is deleted", func(t *testing.T) {
		q := *p
		q.T = t
		q.volumeDeleted()
	})
}

// run runs a command that asks node a, and must work.
func (p *processes) run(args ...string) string {
	p.Helper()
	out, err := lockstepCommand(p.T, append(args, "--node", p.addrs["a"])...).CombinedOutput()
	if err != nil {
		p.Fatalf("lockstep %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (p *processes) nodeJoins() {
	p.addrs["c"] = freeAddr(p.T)
	p.adminAt, p.adminTCP = "c", freeAddr(p.T)
	joined := lockstepCommand(p.T, "cluster", "add", "c", "--wait=20s", "--node", p.addrs["a"])
	var out bytes.Buffer
	joined.Stdout, joined.Stderr = &out, &out
	if err := joined.Start(); err != nil {
		p.Fatal(err)
	}
	p.start("c")
	if err := joined.Wait(); err != nil {
		p.Fatalf("%v: %s", err, &out)
	}
	var m api.Members
	client := api.TCP(p.adminTCP)
	defer client.Close()
	if err := client.Get(p.Context(), http.MethodGet, "/nodes", nil, &m); err != nil || len(m.Nodes) != 4 || m.Nodes["c"].Voter {
		p.Errorf("%v: %+v", err, m.Nodes)
	}
}

func (p *processes) nodeReplaced() {
	p.procs["b"].Kill()
	p.awaitVolume("a", "led by a alone", func(v *api.VolumeStatus) bool { return v.Primary == "a" && len(v.InSync()) == 1 })
	p.run("volume", "replica", "replace", "vol", "b", "--by", "c")
	v := p.awaitVolume("c", "in sync at c", func(v *api.VolumeStatus) bool { return bothInSync(v) && v.Slot("c") >= 0 })
	if v.Slot("b") >= 0 {
		p.Errorf("b still has a replica: %+v", v.Replicas)
	}
	p.run("cluster", "promote", "c")
	p.run("cluster", "remove", "b")
	p.awaitMembers("a, c and w", func(m *api.Members) bool {
		return len(m.Nodes) == 3 && len(m.Group.Servers) == 3 && m.Nodes["c"].Voter && m.Nodes["b"].Addr == ""
	})
	p.run("handover", "vol", "--to", "c")
}

// awaitMembers waits until the group's members are as ok wants them to be.
func (p *processes) awaitMembers(what string, ok func(*api.Members) bool) {
	p.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last api.Members
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		last = api.Members{}
		if p.ask("a", http.MethodGet, "/nodes", nil, &last) == nil && ok(&last) {
			return
		}
	}
	p.Fatalf("the members never were %s: %+v", what, last)
}

func (p *processes) volumeGrows() {
	p.run("volume", "resize", "vol", "--size", "32MiB")
	p.awaitVolume("a", "in sync again", func(v *api.VolumeStatus) bool {
		return bothInSync(v) && v.Standing.Size == 32<<20
	})
	c := p.dial("a", "vol")
	if c.Size() != 32<<20 {
		p.Fatalf("a new client sees %d bytes", c.Size())
	}
	if _, err := c.WriteAt([]byte("beyond"), 20<<20); err != nil {
		p.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := p.dial("c", "vol").ReadAt(got, 20<<20); err != nil || string(got) != "beyond" {
		p.Errorf("%q, %v", got, err)
	}
}

// otherClients have nothing of lockstep in them.
func (p *processes) otherClients(t *testing.T) {
	for _, args := range [][]string{
		{"nbdinfo", "--map", "URI"},
		{"qemu-io", "-f", "raw", "-c", "write -P 3 8M 64k", "-c", "flush", "-c", "read -P 3 8M 64k", "-c", "discard 8M 64k", "-c", "read -P 0 8M 64k", "URI"},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not installed (scripts/setup.sh test)", args[0])
			continue
		}
		for _, name := range []string{"a", "c"} {
			args[len(args)-1] = "nbd+unix:///vol?socket=" + p.socket(name)
			if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("failed")) {
				t.Errorf("%v: %v: %s", args, err, out)
			}
		}
	}
}

func (p *processes) volumeDeleted() {
	c := p.dial("a", "vol")
	p.run("volume", "delete", "vol", "--yes")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(20 * time.Second)
	for ; ; <-tick.C { // that it is decided is not yet known at every node
		if _, err := c.WriteAt(make([]byte, 512), 0); err != nil {
			break
		}
		if time.Now().After(end) {
			p.Fatal("a client still writes")
		}
	}
	for ; ; <-tick.C {
		left, err := os.ReadDir(filepath.Join(p.dir, "a", "volumes"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			p.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			p.Fatalf("files are left of it: %v", left)
		}
	}
}
