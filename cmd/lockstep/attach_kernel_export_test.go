package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/child"
)

// anotherServer attaches what nbdkit serves, which is killed and started again.
func (p *processes) anotherServer() {
	dir := p.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "socket")
	if err := os.WriteFile(image, make([]byte, 4<<20), 0o600); err != nil {
		p.Fatal(err)
	}
	serve := func(flags ...string) *child.Process {
		if err := os.RemoveAll(socket); err != nil {
			p.Fatal(err)
		}
		cmd := exec.Command("nbdkit", append(flags, "-f", "-U", socket, "file", image)...)
		server, err := child.Start("nbdkit", filepath.Join(dir, "nbdkit.log"), cmd)
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(server.Kill)
		return server
	}
	server := serve()
	a := p.attach("nbd+unix:///?socket="+socket, "--connections", "2", "--timeout", "1s")
	l := startLoad(p.T, a.Device)
	l.flows()
	server.Kill()
	server = serve()
	p.Logf("kill -9 of nbdkit: the longest write took %v", l.flows().Round(time.Millisecond))
	l.check()
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
	server.Kill()
	serve("-r")
	a = p.attach("nbd+unix:///?socket=" + socket)
	if got := a.attribute(p.T, "ro"); got != "1" {
		p.Errorf("ro is %q for a read-only export", got)
	}
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
}

// madeAnew deletes the volume, and makes another one of the same name and size: the
// device must fail, not show that.
func (p *processes) madeAnew() {
	a := p.attach(p.nodes("a", "b")...)
	f, err := os.OpenFile(a.Device, os.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		p.Fatal(err)
	}
	defer f.Close()
	buf := aligned(blockBytes)
	if _, err := f.WriteAt(buf, 0); err != nil {
		p.Fatal(err)
	}
	p.mustAsk("w", http.MethodDelete, "/volumes/vol", nil, nil)
	p.makeVolume()
	if _, err := f.ReadAt(buf, 0); !errors.Is(err, syscall.EIO) {
		p.Errorf("a read of the device came to %v, want an I/O error", err)
	}
	p.mustEnd(a, 1)
	if text := string(a.Output()); !strings.Contains(text, "not what was attached") && !strings.Contains(text, "the export is gone") {
		p.Errorf("the agent said:\n%s", text)
	}
}

// grows has a larger volume behind a device in use: it is as large when it is connected anew.
func (p *processes) grows() {
	a := p.attach(p.nodes("a", "b")...)
	l := startLoad(p.T, a.Device)
	l.flows()
	p.mustAsk("w", http.MethodPut, "/volumes/vol/size", api.Resize{Size: 96 << 20}, nil)
	l.flows()
	on := a.node()
	p.procs[on].Kill()
	l.flows()
	for end := time.Now().Add(p.patience); a.device.Size() != 96<<20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("the device has %d bytes", a.device.Size())
		}
	}
	p.start(on)
	l.check()
	p.detach(a, 0, "")
	p.mustEnd(a, 0)
	p.awaitVolume("w", "in sync", bothInSync)
}
