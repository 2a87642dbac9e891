package sweep

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// directFile is a file of some MiB on a file system with direct I/O, zero throughout.
func directFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("%s has no direct I/O (tmpfs has none): set TMPDIR to another file system", t.TempDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return path
}

// loopDevice attaches the file to a block device with sectors of that size.
func loopDevice(t *testing.T, file, sector string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", "--sector-size", sector, file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %s", out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %s", dev, out)
		}
	})
	return dev
}

func openDisk(t *testing.T, path string) Device {
	t.Helper()
	dev, err := OpenDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func TestDiskTakesAnyMemory(t *testing.T) {
	path := directFile(t, 1<<20)
	dev := openDisk(t, path)
	if dev.Size() != 1<<20 {
		t.Errorf("size %d", dev.Size())
	}
	odd := bytes.Repeat([]byte("lockstep"), 1025)[3:][:8192]
	if _, err := dev.WriteAt(odd, 8192); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8193)[1:]
	if _, err := dev.ReadAt(got, 8192); err != nil || !bytes.Equal(got, odd) {
		t.Errorf("read back other bytes than were written (error %v)", err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if onDisk, err := os.ReadFile(path); err != nil || !bytes.Equal(onDisk[8192:16384], odd) {
		t.Errorf("the file holds other bytes (error %v)", err)
	}
	if _, err := dev.WriteAt(odd, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: error %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestDiskRefusesPartsOfSectors(t *testing.T) {
	dev := openDisk(t, loopDevice(t, directFile(t, 1<<20), "4096"))
	for _, tc := range []struct {
		size int
		off  int64
	}{{512, 0}, {4096, 512}, {100, 0}} {
		if _, err := dev.WriteAt(make([]byte, tc.size), tc.off); err == nil || !strings.Contains(err.Error(), "sector has 4096 bytes") {
			t.Errorf("%d bytes at %d: error %v", tc.size, tc.off, err)
		}
	}
	if _, err := dev.WriteAt(make([]byte, 4096), 4096); err != nil {
		t.Error(err)
	}
}

func TestDiskInUseIsRefused(t *testing.T) {
	path := loopDevice(t, directFile(t, 1<<20), "512")
	holder, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0) // as a mount does
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := OpenDisk(path); err == nil || !strings.Contains(err.Error(), "mounted, or part of another") {
		t.Errorf("error %v", err)
	}
}

func TestDiskThatIsNotThere(t *testing.T) {
	if _, err := OpenDisk(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// Close while writes run must be no race, and end what comes after it.
func TestDiskIsClosedUnderWriters(t *testing.T) {
	for range 20 {
		dev := openDisk(t, directFile(t, 1<<20))
		var wait sync.WaitGroup
		begun := make(chan struct{}, 4)
		for w := range 4 {
			wait.Go(func() {
				p := aligned(4096, pageSize)
				for i := int64(0); ; i++ {
					if _, err := dev.WriteAt(p, (i*4+int64(w))%256*4096); err != nil {
						if !errors.Is(err, os.ErrClosed) {
							t.Errorf("write: %v", err)
						}
						return
					}
					if i == 0 {
						begun <- struct{}{}
					}
				}
			})
		}
		<-begun
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		wait.Wait()
	}
}

// The load's own path: writes, the check past the cache, and the find of damage.
func TestLoadOnADisk(t *testing.T) {
	path := directFile(t, 4<<20)
	dev := openDisk(t, path)
	l, err := newLedger(7, dev.Size(), 4096, 4)
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&load{dev: dev, ledger: l, duration: 200 * time.Millisecond, sleep: sleep}).run(context.Background())
	if err != nil || m.latency.TotalCount() == 0 {
		t.Fatalf("%d writes, error %v", m.latency.TotalCount(), err)
	}
	if n, err := l.check(context.Background(), dev); err != nil || n == 0 {
		t.Fatalf("%d blocks checked, error %v", n, err)
	}
	var block int64
	for l.seq[block] == 0 {
		block++
	}
	if _, err := dev.WriteAt(make([]byte, 4096), l.offset(block)); err != nil {
		t.Fatal(err)
	}
	var mismatch *MismatchError
	if _, err := l.check(context.Background(), dev); !errors.As(err, &mismatch) || mismatch.Block != block {
		t.Errorf("error %v, want block %d", err, block)
	}
}
