package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCommandLines pins what is run: whoever changes one sees it here.
func TestCommandLines(t *testing.T) {
	c := &Config{Dir: "/dir", Size: 64 * mebibyte}
	pair := &drbdPair{conf: c}
	pair.name(nil) // a loop's addresses are fixed
	array := &mdArray{conf: c}
	var got strings.Builder
	for _, e := range pair.ends {
		for _, command := range pair.commands(e, "/dev/loop0") {
			fmt.Fprintln(&got, strings.Join(command, " "))
		}
	}
	for _, command := range [][]string{
		append([]string{"nbdkit"}, nbdkitArgs("10.254.0.2", "/s/pid", "/dir/b")...),
		append([]string{"nbd-client"}, clientArgs("10.254.0.2", "/dev/nbd15")...),
		append([]string{"mdadm"}, array.createArgs("1:2:3:4", "/dev/loop0", "/dev/nbd15")...),
		append([]string{"qemu-storage-daemon"}, (&quorum{conf: c}).args("10.254.0.2", "/s/vol.sock")...),
	} {
		fmt.Fprintln(&got, strings.Join(command, " "))
	}
	want, err := os.ReadFile("testdata/commands.txt")
	if err != nil || got.String() != string(want) {
		t.Errorf("testdata/commands.txt is not (%v):\n%s", err, &got)
	}
}

func TestDRBDShow(t *testing.T) {
	const text = `resource theirs {
    _this_host {
        volume 0 {
            device			minor 1;
            disk			"/dev/sda3";
            meta-disk			internal;
        }
    }
}
resource lockstep-a {
    options { }
    _this_host {
        volume 0 {
            device			minor 140;
            disk			"/dev/loop7";
            meta-disk			internal;
            disk {
                al-extents      	6007;
            }
        }
    }
}
resource lockstep-b {
}
`
	for resource, want := range map[string]string{"theirs": "/dev/sda3", "lockstep-a": "/dev/loop7", "lockstep-b": "none", "lockstep": ""} {
		if got := parseDRBDShow(text, resource); got != want {
			t.Errorf("the disk of %s is %q, want %q", resource, got, want)
		}
	}
}

func TestWhatToolsSay(t *testing.T) {
	if got := mdUUID("MD_LEVEL=raid1\nMD_UUID=1a:2b:3c:4d\nMD_NAME=x\n"); got != "1a:2b:3c:4d" {
		t.Errorf("UUID %q", got)
	}
	if got := attached("level=INFO msg=x\n{\"time\":1}\n{\"device\":\"/dev/nbd3\",\"size\":1}\n"); got != "/dev/nbd3" {
		t.Errorf("device %q", got)
	}
	if got := attached(`{"device":"/dev/nbd`); got != "" {
		t.Errorf("device %q of half a line", got)
	}
	if got := trimDeleted("/tmp/a (deleted)\n"); got != "/tmp/a" {
		t.Errorf("backing file %q", got)
	}
	for text, want := range map[string]bool{"0 0 4294967295\n": true, "         0          0 4294967295": true, "0 1000 1": false, "0 0 1\n1 1 1": false} {
		if wholeMap(text) != want {
			t.Errorf("uid_map %q: %v", text, !want)
		}
	}
	if uuid := newUUID(); len(uuid) != 35 || strings.Count(uuid, ":") != 3 || uuid == newUUID() {
		t.Errorf("UUID %q", uuid)
	}
}

func TestUnknownTargetAndSize(t *testing.T) {
	if err := Check("floppy"); err == nil || !strings.Contains(err.Error(), "use some of lockstep, drbd, md-nbd, qemu-quorum, local") {
		t.Errorf("error %v", err)
	}
	c := Config{Dir: t.TempDir(), Logs: t.TempDir(), Size: 1000}
	if _, err := Open(t.Context(), "lockstep", c); err == nil || !strings.Contains(err.Error(), "multiple of 1 MiB") {
		t.Errorf("error %v", err)
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	if err := needTool("no-such-program", "some-package"); err == nil || !strings.Contains(err.Error(), "install some-package (scripts/vm.sh") {
		t.Errorf("error %v", err)
	}
	if err := needModule("no_such_module"); err == nil || !strings.Contains(err.Error(), "no module no_such_module (scripts/vm.sh") {
		t.Errorf("error %v", err)
	}
	if _, err := tool(t.Context(), "sh", "-c", "echo this went wrong >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: this went wrong") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := tool(ctx, "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestRunIsUndoneInReverse(t *testing.T) {
	r := run{logs: t.TempDir(), name: "x"}
	var order []int
	for i := range 3 {
		r.did(fmt.Sprint("step ", i), func(ctx context.Context) error {
			order = append(order, i)
			if i == 1 {
				return errors.New("stuck")
			}
			return ctx.Err()
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // as after Ctrl-C
	err := r.undo(ended)
	if err == nil || err.Error() != "undo: step 1: stuck" || !slices.Equal(order, []int{2, 1, 0}) {
		t.Errorf("order %v, error %v", order, err)
	}
	if err := r.undo(ended); err != nil || len(order) != 3 {
		t.Errorf("undone twice: %v, %v", order, err)
	}
}

func TestRunAwaits(t *testing.T) {
	r := run{logs: t.TempDir(), name: "x"}
	tries := 0
	err := r.await(t.Context(), func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	never := errors.New("never")
	if err := r.await(t.Context(), func() error { tries++; return hopeless{never} }); !errors.Is(err, never) || tries != 4 {
		t.Errorf("%d tries, %v", tries, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.await(ctx, func() error { return never }); !errors.Is(err, never) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := r.start("some server", exec.Command("sh", "-c", "echo bad flag >&2; exit 4")); err != nil {
		t.Fatal(err)
	}
	err = r.await(t.Context(), func() error { return never })
	if err == nil || !strings.Contains(r.explain(err).Error(), "some server ended too early: exit status 4") || !strings.Contains(r.explain(err).Error(), "bad flag") {
		t.Errorf("error %v", r.explain(err))
	}
	if err := r.undo(t.Context()); err == nil {
		t.Error("a process that ended by itself was stopped without a word")
	}
}

// A terminal sends Ctrl-C to its whole process group.
func TestProcessesAreOutOfCtrlCsReach(t *testing.T) {
	r := run{logs: t.TempDir(), name: "x"}
	p, err := r.start("server", exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(p.Cmd.Process.Pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("process group %d (%v), as this process", group, err)
	}
	if err := r.undo(t.Context()); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("stop: %v", err)
	}
}

func TestRecord(t *testing.T) {
	defer func(was string) { records = was }(records)
	records = filepath.Join(t.TempDir(), "run")
	none := func(thing) error { return errors.New("there should be nothing") }
	first, err := openRecord("kind", none)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRecord("kind", none); err == nil || !strings.Contains(err.Error(), "another sweep of kind runs") {
		t.Errorf("a second one: %v", err)
	}
	a, b := thing{"a", "/file/of/a"}, thing{"b", "uuid"}
	if err := first.write([]thing{a, b}); err != nil {
		t.Fatal(err)
	}
	if err := first.close(); err != nil { // as when its process is killed
		t.Fatal(err)
	}
	var mended []thing
	_, err = openRecord("kind", func(left thing) error {
		if left == a {
			return errors.New("it is on another disk")
		}
		mended = append(mended, left)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "on another disk") || !strings.Contains(err.Error(), records) || !slices.Equal(mended, []thing{b}) {
		t.Errorf("mended %v, error %v", mended, err)
	}
	last, err := openRecord("kind", func(left thing) error { mended = append(mended, left); return nil })
	if err != nil || !slices.Equal(mended, []thing{b, a}) {
		t.Fatalf("mended %v, error %v", mended, err)
	}
	if text, err := os.ReadFile(filepath.Join(records, "kind.json")); err != nil || len(text) > 0 {
		t.Errorf("left on record: %q, %v", text, err)
	}
	if err := last.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(records, "kind.json"), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRecord("kind", none); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("a broken record: %v", err)
	}
}

// TestADeviceMayTakeAMomentToGo: when its agent has detached it, the kernel still shows it
// for as long as it drops the cache, and nothing can be detached any more.
func TestADeviceMayTakeAMomentToGo(t *testing.T) {
	oldSys, oldTimeout := sysfs, releaseTimeout
	sysfs, releaseTimeout = t.TempDir(), 100*time.Millisecond
	defer func() { sysfs, releaseTimeout = oldSys, oldTimeout }()
	file := filepath.Join(sysfs, "nbd7", "backend")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "exe")
	c := &Config{Exe: exe}
	for _, tc := range []struct {
		name, script string // what lockstep detach does, which fails
		before       bool   // it goes before it is asked to
		ok           bool
	}{
		{"while it is waited for", "echo unasked >" + file + "; exit 1", true, true},
		{"meanwhile", "rm " + file + "; exit 1", false, true},
		{"never", "exit 1", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := errors.Join(os.WriteFile(file, []byte("mine\n"), 0o644), os.WriteFile(exe, []byte("#!/bin/sh\n"+tc.script), 0o755))
			if err != nil {
				t.Fatal(err)
			}
			if tc.before {
				releaseTimeout = time.Minute
				gone := time.AfterFunc(20*time.Millisecond, func() { os.Remove(file) })
				defer func() { gone.Stop(); releaseTimeout = 100 * time.Millisecond }()
			}
			err = c.forceDetach(t.Context(), thing{Name: "/dev/nbd7", Identity: "mine"})
			if (err == nil) != tc.ok {
				t.Error(err)
			}
			if _, err := os.Stat(file); tc.ok && err == nil {
				t.Error("it was asked to go, or is still there")
			}
		})
	}
}
