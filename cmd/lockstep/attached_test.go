package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lockstep/cmd/lockstep/child"
	"lockstep/nbd/kernel"
)

// needKernel skips a test where the kernel has no NBD devices.
func needKernel(t *testing.T) {
	t.Helper()
	control, err := openKernel()
	if err != nil {
		t.Skipf("%v; scripts/vm.sh test runs it in a machine that has them", err)
	}
	control.Close()
}

// attached is a lockstep attach that runs.
type attached struct {
	*child.Process
	kernel.Ready
	device kernel.Device
	args   []string
}

// attach starts an agent, and waits until its device is ready.
func (p *processes) attach(args ...string) *attached {
	p.Helper()
	a := &attached{args: args}
	p.startAgent(a)
	p.all.Cleanup(func() {
		a.Kill()
		if p.all.Failed() {
			p.all.Logf("the agent of %s said:\n%s", a.Device, a.Output())
		}
		if a.device.InUse() {
			detach := lockstepCommand(p.all, "detach", a.Device, "--force")
			detach.Cancel = func() error { return nil } // the test's context has ended
			if out, err := detach.CombinedOutput(); err != nil {
				p.all.Errorf("%v: %s", err, out)
			}
		}
	})
	return a
}

func (p *processes) startAgent(a *attached) {
	p.Helper()
	cmd := lockstepCommand(p.all, append([]string{"attach", "--json"}, a.args...)...)
	cmd.Cancel = func() error { return nil } // ended by name
	proc, err := child.Start("attach", filepath.Join(p.dir, "attach.log"), cmd)
	if err != nil {
		p.Fatal(err)
	}
	a.Process = proc
	ctx, cancel := contextWithin(p.T, 30*time.Second)
	defer cancel()
	if err := proc.AwaitOutput(ctx, `{"device":`); err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(proc.Output())) {
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &a.Ready); err != nil {
				p.Fatalf("%v: %s", err, line)
			}
		}
	}
	if a.device, err = kernel.ParseDevice(a.Device); err != nil {
		p.Fatal(err)
	}
}

// blockBytes is what a deviceWriter writes at once.
const (
	blockBytes    = 4096
	writerBlocks  = 16
	deviceWriters = 4
)

// deviceWriter writes to its own part of a device, past the page cache, and knows what
// it was told is there. Any error is one that a file system would have seen.
type deviceWriter struct {
	file  *os.File
	from  int64 // bytes
	acked [writerBlocks]uint64
	asked [writerBlocks]uint64

	mu      sync.Mutex
	done    uint64 // writes that were acknowledged
	longest time.Duration
	err     error
}

// load is writers at work on a device.
type load struct {
	t       *testing.T
	device  string
	all     []*deviceWriter
	stop    chan struct{}
	running sync.WaitGroup
}

// aligned is memory for a write past the page cache.
func aligned(n int) []byte {
	b := make([]byte, n+blockBytes)
	skip := blockBytes - int(uintptr(unsafe.Pointer(&b[0]))%blockBytes)
	return b[skip : skip+n]
}

func startLoad(t *testing.T, device string) *load {
	t.Helper()
	l := &load{t: t, device: device, stop: make(chan struct{})}
	for i := range deviceWriters {
		f, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT|unix.O_SYNC|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := &deviceWriter{file: f, from: int64(i) * writerBlocks * blockBytes}
		l.all = append(l.all, w)
		l.running.Go(func() { w.run(l.stop) })
	}
	t.Cleanup(l.end)
	return l
}

func (w *deviceWriter) run(stop chan struct{}) {
	buf, before := aligned(blockBytes), aligned(blockBytes)
	for n := uint64(1); ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		i := n % writerBlocks
		if err := w.look(i, before); err != nil {
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			return
		}
		w.asked[i] = n
		for at := 0; at < len(buf); at += 8 {
			binary.BigEndian.PutUint64(buf[at:], n)
		}
		began := time.Now()
		_, err := w.file.WriteAt(buf, w.from+int64(i)*blockBytes)
		w.mu.Lock()
		w.longest = max(w.longest, time.Since(began))
		w.err = errors.Join(w.err, err)
		w.done++
		w.mu.Unlock()
		if err != nil {
			return
		}
		w.acked[i] = n
	}
}

// look holds a block to what was last written to it, before that is written over: a write
// that was lost, or that landed late, is seen the next time round.
func (w *deviceWriter) look(i uint64, buf []byte) error {
	if w.acked[i] == 0 {
		return nil
	}
	if _, err := w.file.ReadAt(buf, w.from+int64(i)*blockBytes); err != nil {
		return err
	}
	return w.mustBe(i, buf)
}

// flows waits until every writer has been acknowledged 3 writes more, and returns the longest
// write since the last call.
func (l *load) flows() (longest time.Duration) {
	l.t.Helper()
	return l.flow(3)
}

// lap waits until every writer has written all of its blocks anew: a write from before that
// comes late lands on a newer one.
func (l *load) lap() {
	l.t.Helper()
	l.flow(writerBlocks + 1)
}

func (l *load) flow(writes uint64) (longest time.Duration) {
	l.t.Helper()
	for _, w := range l.all {
		var from uint64
		for end, first := time.Now().Add(90*time.Second), true; ; time.Sleep(2 * time.Millisecond) {
			w.mu.Lock()
			done, err := w.done, w.err
			w.mu.Unlock()
			if first {
				from, first = done, false
			}
			if err != nil {
				l.t.Fatalf("what is on the device saw an error: %v", err)
			}
			if done >= from+writes {
				break
			}
			if time.Now().After(end) {
				l.t.Fatal("writes do not go on")
			}
		}
	}
	for _, w := range l.all {
		w.mu.Lock()
		longest, w.longest = max(longest, w.longest), 0
		w.mu.Unlock()
	}
	return longest
}

// end stops the writers.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.running.Wait()
	for _, w := range l.all {
		w.file.Close()
	}
}

// check reads what must be there, at the device.
func (l *load) check() {
	l.t.Helper()
	l.end()
	f, err := os.OpenFile(l.device, os.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	buf := aligned(writerBlocks * blockBytes)
	for k, w := range l.all {
		if w.err != nil {
			l.t.Errorf("writer %d saw %v", k, w.err)
		}
		if _, err := f.ReadAt(buf, w.from); err != nil {
			l.t.Fatal(err)
		}
		for i := range uint64(writerBlocks) {
			if w.asked[i] == 0 { // what was there before
				continue
			}
			if err := w.mustBe(i, buf[i*blockBytes:(i+1)*blockBytes]); err != nil {
				l.t.Errorf("writer %d: %v", k, err)
			}
		}
	}
}

// mustBe holds a block to what was acknowledged, or asked for later.
func (w *deviceWriter) mustBe(i uint64, block []byte) error {
	for at := 0; at < len(block); at += 8 {
		if n := binary.BigEndian.Uint64(block[at:]); n < w.acked[i] || n > w.asked[i] {
			return fmt.Errorf("block %d has write %d at byte %d, want %d to %d", i, n, at, w.acked[i], w.asked[i])
		}
	}
	return nil
}

// mustRun runs a program of the system.
func mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
