package kernel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/nbd"
)

// fakeKernel does what nbd.ko does with devices and sockets, short of requests: it takes
// new sockets only in the places of dead ones, and says yes in any case. It keeps sysfs in
// a directory.
type fakeKernel struct {
	t *testing.T

	mu           sync.Mutex
	devices      map[int]*fakeDevice
	busy         map[int]bool // somebody else takes them when asked
	disconnected int
	handed       int // sockets that were offered to Reconfigure
}

type fakeDevice struct {
	spec Spec
	fds  []int
}

func newFakeKernel(t *testing.T) *fakeKernel {
	t.Helper()
	k := &fakeKernel{t: t, devices: map[int]*fakeDevice{}, busy: map[int]bool{}}
	oldSys, oldLock, oldDevices := sysfs, lockDir, devices
	sysfs, lockDir, devices = t.TempDir(), t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, d := range k.devices {
			d.close()
		}
		sysfs, lockDir, devices = oldSys, oldLock, oldDevices
	})
	return k
}

func (d *fakeDevice) close() {
	for _, fd := range d.fds {
		unix.Shutdown(fd, unix.SHUT_RDWR) //nolint:errcheck // dead already is fine
		unix.Close(fd)
	}
	d.fds = nil
}

// take makes a socket the kernel's.
func (d *fakeDevice) take(fd int) int {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		panic(err)
	}
	tv := unix.NsecToTimeval(d.spec.Timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(own, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		panic(err)
	}
	return own
}

func (k *fakeKernel) attribute(index int, name, value string) {
	path := filepath.Join(sysfs, "nbd"+strconv.Itoa(index), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Error(err)
	}
	if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
		k.t.Error(err)
	}
}

func (k *fakeKernel) Connect(index int, spec *Spec, fds []int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[index] || k.devices[index] != nil {
		return unix.EBUSY
	}
	d := &fakeDevice{spec: *spec}
	for _, fd := range fds {
		d.fds = append(d.fds, d.take(fd))
	}
	k.devices[index] = d
	k.attribute(index, "size", strconv.FormatUint(spec.Size/512, 10))
	k.attribute(index, "pid", "1")
	k.attribute(index, "backend", spec.Backend)
	k.attribute(index, "ro", strconv.Itoa(int(spec.Flags>>1&1)))
	k.attribute(index, "queue/logical_block_size", strconv.Itoa(int(spec.Block)))
	if err := os.WriteFile((Device{index}).Path(), nil, 0o600); err != nil {
		k.t.Error(err)
	}
	return nil
}

func (k *fakeKernel) Reconfigure(index int, backend string, change Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[index]
	if d == nil || d.spec.Backend != backend {
		return unix.EINVAL
	}
	if change.Size != 0 {
		d.spec.Size = change.Size
		k.attribute(index, "size", strconv.FormatUint(change.Size/512, 10))
	}
	if change.Timeout != 0 {
		d.spec.Timeout = change.Timeout
	}
	for _, fd := range change.Sockets {
		k.handed++
		for i, old := range d.fds {
			if dead(old) {
				unix.Close(old)
				d.fds[i] = d.take(fd)
				break
			}
		}
	}
	return nil
}

func dead(fd int) bool {
	p := path{fds: []int{fd}}
	return p.lost(0)
}

func (k *fakeKernel) Disconnect(index int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d != nil {
		k.disconnected++
		d.close()
		delete(k.devices, index)
	}
	return os.RemoveAll(filepath.Join(sysfs, "nbd"+strconv.Itoa(index)))
}

// of is what the kernel has of a device.
func (k *fakeKernel) of(index int) (spec Spec, sockets int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d != nil {
		return d.spec, len(d.fds)
	}
	return Spec{}, 0
}

// server is an NBD server that can be broken.
type server struct {
	t     *testing.T
	at    nbd.Endpoint
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	export  nbd.Export // what is served now; no name: nothing
	names   []string   // under which clients came
	refused atomic.Int64
}

type void struct{}

func (void) Submit(batch []*nbd.Request) { nbd.Complete(batch) }

func (s *server) List() []nbd.Export { return nil }

func (s *server) Find(name string) (nbd.Export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.export.Name == "" {
		s.refused.Add(1)
		return nbd.Export{}, os.ErrNotExist
	}
	s.names = append(s.names, name)
	return s.export, nil
}

func (s *server) serve(e nbd.Export) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Backend = void{}
	s.export = e
}

func (s *server) came() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.names...)
}

// start listens at the server's address.
func (s *server) start() {
	s.t.Helper()
	n, err := nbd.NewServer(nbd.Config{Catalog: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen(s.at.Network, s.at.Address)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.ended, s.stop = ended, cancel
	go func() {
		defer close(ended)
		n.Serve(ctx, l) //nolint:errcheck // it ends when it is told to
	}()
	s.t.Cleanup(func() { cancel(); <-ended })
}

// kill ends it.
func (s *server) kill() { s.stop(); <-s.ended }

var volume = nbd.Export{Name: "vol", Description: "volume 1", Size: 1 << 20}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, at: nbd.Endpoint{Network: "unix", Address: filepath.Join(t.TempDir(), "s"), Export: "vol"}}
	s.serve(volume)
	s.start()
	return s
}

// newHung returns a server that takes connections and says nothing.
func newHung(t *testing.T) nbd.Endpoint {
	t.Helper()
	at := nbd.Endpoint{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", at.Address) // whose backlog takes them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return at
}

// running is an agent that runs.
type running struct {
	*Agent
	cancel context.CancelFunc
	ended  chan error
}

// config has servers that answer: however slow the machine is, none of them is given up.
func config(servers ...*server) Config {
	c := Config{Log: slog.New(slog.DiscardHandler), Owner: func(d Device) string { return "vol@test-" + d.Name() }}
	for _, s := range servers {
		c.Servers = append(c.Servers, s.at)
	}
	c.Export = func(d Device, stay int, first bool) string {
		if first {
			return d.Name() + "." + strconv.Itoa(stay) + "n"
		}
		return d.Name() + "." + strconv.Itoa(stay)
	}
	return c
}

func (k *fakeKernel) attach(c Config) (*running, error) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := Attach(ctx, k, c)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	r := &running{Agent: a, cancel: end, ended: make(chan error, 1)}
	go func() { r.ended <- a.Run(life) }()
	k.t.Cleanup(func() {
		end()
		r.wait(k.t)
	})
	return r, nil
}

func (k *fakeKernel) mustAttach(c Config) *running {
	k.t.Helper()
	r, err := k.attach(c)
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

var errEnded = errors.New("it had ended before")

// wait returns what Run returned.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(10 * time.Second):
		t.Error("the agent does not end")
		return errEnded
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never was so: %s", what)
		}
	}
}
