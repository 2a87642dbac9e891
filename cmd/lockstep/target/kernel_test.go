package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/sites"
)

// inLab is set in the machines of scripts/vm.sh, where nothing may be missing.
const inLab = "LOCKSTEP_VM"

func need(t *testing.T, name string) {
	t.Helper()
	if err := Check(name); err != nil && os.Getenv(inLab) == "" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// labConfig is of small volumes in sites of their own.
func labConfig(t *testing.T, kernel bool) Config {
	t.Helper()
	exe, err := exec.LookPath("lockstep")
	if err != nil {
		t.Skip("needs lockstep in PATH, as in scripts/vm.sh")
	}
	s, err := sites.Open(t.Context(), sites.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return labTargets(s, exe, t.TempDir(), kernel)
}

func labTargets(s *sites.Sites, exe, dir string, kernel bool) Config {
	c := Config{Sites: s, Wire: SiteWire(s), Exe: exe, Dir: filepath.Join(dir, "volume"), Logs: filepath.Join(dir, "logs"), Scratch: s.Dir(),
		Size: 4 * mebibyte, Ack: "written", Kernel: kernel}
	for i, site := range []sites.Site{sites.A, sites.B, sites.A} {
		addr := net.JoinHostPort(s.Addr(site).String(), fmt.Sprint(7800+i))
		c.Nodes = append(c.Nodes, Node{[]string{"a", "b", Witness}[i], addr, func(args ...string) *exec.Cmd {
			return s.Command(context.Background(), site, exe, args...)
		}})
	}
	return c
}

// TestKernelTargets uses a volume of each kind twice, over a link, and looks that the
// copies hold what was written and that nothing is left.
func TestKernelTargets(t *testing.T) {
	for _, name := range Names() {
		for _, kernel := range []bool{true, false} {
			if !kernel && !slices.Contains([]string{"lockstep", "qemu-quorum"}, name) {
				continue
			}
			t.Run(fmt.Sprintf("%s kernel=%v", name, kernel), func(t *testing.T) {
				need(t, name)
				before := blockDevices(t)
				useTarget(t, name, labConfig(t, kernel))
				if after := blockDevices(t); after != before {
					t.Errorf("block devices before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
}

func useTarget(t *testing.T, name string, c Config) {
	ctx := t.Context()
	tg, err := Open(ctx, name, c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tg.Close(false); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(c.Dir, name)); err == nil {
			t.Error("the copies are left")
		}
	}()
	link := wanem.Link{Distance: 300 * wanem.Km}
	if wire := tg.Wire(); wire != nil {
		if err := wire.SetLink(ctx, link); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		useVolume(t, tg, c.Size, link)
	}
}

func useVolume(t *testing.T, tg Target, size int64, link wanem.Link) {
	ctx := t.Context()
	begin := time.Now()
	dev, err := tg.Open(ctx)
	if err != nil {
		t.Fatal(tg.Explain(err))
	}
	opened := time.Since(begin)
	want := bytes.Repeat([]byte("mirrored"), 512)
	var took time.Duration
	for _, off := range []int64{0, size / 2, size - int64(len(want))} {
		begin := time.Now()
		if _, err := dev.WriteAt(want, off); err != nil {
			t.Fatal(tg.Explain(err))
		}
		took = time.Since(begin)
		got := make([]byte, len(want))
		if _, err := dev.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read back at %d: %v", off, err)
		}
	}
	if !tg.Facts().OneCopy && took < link.RTT() {
		t.Errorf("a write took %v, less than the round trip of %v: it does not cross the link", took, link.RTT())
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	begin = time.Now()
	n, err := tg.Compare(ctx)
	t.Logf("opened in %v, last write in %v, compared in %v", opened, took, time.Since(begin))
	if err != nil || n != size && !tg.Facts().OneCopy {
		t.Fatalf("compared %d bytes: %v", n, tg.Explain(err))
	}
	for _, path := range tg.(*target).open.copies {
		got := make([]byte, len(want))
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(got, size/2); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s does not hold what was written: %v", path, err)
		}
		f.Close()
	}
}

// TestKernelTargetFindsADifference spoils the copy at site B.
func TestKernelTargetFindsADifference(t *testing.T) {
	need(t, "md-nbd")
	tg, err := Open(t.Context(), "md-nbd", labConfig(t, true))
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close(false) //nolint:errcheck // the other test looks at it
	dev, err := tg.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(tg.(*target).open.copies[1], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 4711); err != nil {
		t.Fatal(err)
	}
	_, err = tg.Compare(t.Context())
	if err == nil || !strings.Contains(err.Error(), "differ from offset 4711 on") {
		t.Errorf("error %v", err)
	}
}

// blockDevices are those that are something at the moment.
func blockDevices(t *testing.T) string {
	t.Helper()
	sizes, err := filepath.Glob("/sys/block/*/size")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, path := range sizes {
		size, err := os.ReadFile(path)
		if name := strings.Split(path, "/")[3]; err == nil && strings.TrimSpace(string(size)) != "0" {
			fmt.Fprintln(&b, name, strings.TrimSpace(string(size)))
		}
	}
	return b.String()
}

// asKilled makes the test binary open a target and wait to be killed; its value is
// the target and a directory.
const asKilled = "LOCKSTEP_TEST_KILLED"

func TestMain(m *testing.M) {
	if what := os.Getenv(asKilled); what != "" {
		name, dir, _ := strings.Cut(what, ":")
		holdTarget(name, dir)
	}
	os.Exit(m.Run())
}

func holdTarget(name, dir string) {
	err := func() error {
		exe, err := exec.LookPath("lockstep")
		if err != nil {
			return err
		}
		s, err := sites.Open(context.Background(), sites.Config{})
		if err != nil {
			return err
		}
		tg, err := Open(context.Background(), name, labTargets(s, exe, dir, true))
		if err != nil {
			return err
		}
		dev, err := tg.Open(context.Background())
		if err != nil {
			return err
		}
		go func() { // so that it is killed in the middle of something
			for {
				if _, err := dev.WriteAt(make([]byte, 4096), 0); err != nil {
					return
				}
			}
		}()
		fmt.Println("open")
		select {}
	}()
	fmt.Println(err)
	os.Exit(1)
}

// TestKernelTargetAfterKill kills a process that has a volume open in the hardest way; the
// next one finds what it left, and works.
func TestKernelTargetAfterKill(t *testing.T) {
	for _, name := range []string{"drbd", "md-nbd", "lockstep"} {
		t.Run(name, func(t *testing.T) {
			need(t, name)
			before := blockDevices(t)
			c := labConfig(t, true)
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), asKilled+"="+name+":"+t.TempDir())
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := make([]byte, 4096)
			n, err := stdout.Read(said)
			if err != nil || string(said[:n]) != "open\n" {
				t.Fatalf("%s, %v", said[:n], err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			useTarget(t, name, c)
			// What the killed process had asked of its device fails when its server has been gone for a while.
			await(t, time.Minute, func() error {
				if after := blockDevices(t); after != before {
					return fmt.Errorf("block devices before:\n%s\nafter:\n%s", before, after)
				}
				return nil
			})
		})
	}
}

// TestKernelTargetLeavesWhatIsNotItsOwn has an array where one is on record, but of
// another UUID, and a DRBD resource that is on no record.
func TestKernelTargetLeavesWhatIsNotItsOwn(t *testing.T) {
	need(t, "md-nbd")
	need(t, "drbd")
	ctx, c := t.Context(), labConfig(t, true)
	r := run{logs: t.TempDir(), name: "user"}
	defer func() {
		if err := r.undo(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(loadModule(ctx, "raid1"), loadModule(ctx, "loop"), loadModule(ctx, "drbd", "usermode_helper=/bin/true")); err != nil {
		t.Fatal(err)
	}
	record, err := openRecord("md-nbd", func(thing) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(record.write([]thing{{mdDevice, newUUID()}}), record.close()); err != nil {
		t.Fatal(err)
	}
	args := []string{"--create", mdDevice, "--run", "--quiet", "--level=1", "--raid-devices=2", "--metadata=1.0", "--assume-clean", "--uuid=" + newUUID()}
	for _, name := range []string{"a", "b"} {
		disk, err := newDisk(&r, filepath.Join(t.TempDir(), name), 16*mebibyte)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, disk)
	}
	if _, err := tool(ctx, "mdadm", args...); err != nil {
		t.Fatal(err)
	}
	r.did("make an array", func(ctx context.Context) error {
		_, err := tool(ctx, "mdadm", "--stop", mdDevice)
		return err
	})
	if _, err := Open(ctx, "md-nbd", c); err == nil || !strings.Contains(err.Error(), "it may be somebody's") {
		t.Errorf("md-nbd: %v", err)
	}
	if err := mdWhole(); err != nil {
		t.Errorf("the array: %v", err)
	}
	if _, err := tool(ctx, drbdSetup, "new-resource", "lockstep-a"); err != nil {
		t.Fatal(err)
	}
	r.did("make a resource", func(ctx context.Context) error { return drbdDown(ctx, "lockstep-a") })
	if _, err := Open(ctx, "drbd", c); err == nil || !strings.Contains(err.Error(), "no record speaks of") {
		t.Errorf("drbd: %v", err)
	}
	if disk, err := drbdDisk(ctx, "lockstep-a"); err != nil || disk != "none" {
		t.Errorf("the resource is on %q, %v", disk, err)
	}
	if err := r.undo(ctx); err != nil {
		t.Fatal(err)
	}
	useTarget(t, "md-nbd", c) // what is on record is gone: nothing is in the way
}

func await(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	for until := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}
