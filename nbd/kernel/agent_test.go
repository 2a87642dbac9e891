package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lockstep/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAttachMakesADevice(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	c := config(s)
	c.Connections, c.Block = 3, 4096
	a := k.mustAttach(c)
	spec, sockets := k.of(0)
	want := Spec{Size: 1 << 20, Block: 4096, Flags: spec.Flags, Timeout: DefaultTimeout, DeadAfter: DefaultDeadAfter, Backend: `lockstep vol@test-nbd0 3 "volume 1"`}
	if spec != want || sockets != 3 {
		t.Errorf("the device is %+v with %d sockets, want %+v", spec, sockets, want)
	}
	if f := nbd.TransmissionFlags(spec.Flags); f&nbd.SendFlush == 0 || f&nbd.SendFUA == 0 || f&nbd.SendTrim == 0 || f&nbd.IsReadOnly != 0 {
		t.Errorf("flags %#x", spec.Flags)
	}
	if came := s.came(); !slices.Equal(came, []string{"nbd0.1n", "nbd0.1n", "nbd0.1n"}) {
		t.Errorf("it came as %v, want one stay of three connections", came)
	}
	if d := a.Device(); !d.InUse() || !d.Ours() || d.Size() != 1<<20 {
		t.Errorf("in use %v, ours %v, size %d", d.InUse(), d.Ours(), d.Size())
	}
}

// TestAnotherServer loses servers: the device goes to the next, under a new stay.
func TestAnotherServer(t *testing.T) {
	k, s1, s2 := newFakeKernel(t), newServer(t), newServer(t)
	k.mustAttach(config(s1, s2))
	s1.kill()
	eventually(t, "attached to the second server", func() bool { return len(s2.came()) == 1 })
	s1.start()
	s2.kill()
	eventually(t, "attached to the first again", func() bool { return len(s1.came()) == 2 })
	s2.start()
	first, second, third := s1.came()[0], s2.came()[0], s1.came()[1]
	if first != "nbd0.1n" || stayOf(second) <= 1 || stayOf(third) <= stayOf(second) {
		t.Errorf("stays %s, %s, %s: each must be later than the one before", first, second, third)
	}
}

// stayOf is the number in the name that an agent asked for.
func stayOf(name string) (stay int) {
	fmt.Sscanf(name, "nbd0.%d", &stay) //nolint:errcheck // it is 0 then
	return stay
}

// TestAHungServer has one that says nothing in between.
func TestAHungServer(t *testing.T) {
	k, s1, s2 := newFakeKernel(t), newServer(t), newServer(t)
	c := config(s1)
	c.Stall = 500 * time.Millisecond
	c.Servers = append(c.Servers, newHung(t), s2.at)
	k.mustAttach(c)
	s1.kill()
	eventually(t, "attached to the last", func() bool { return len(s2.came()) == 1 })
	if came := s2.came(); came[0] == "nbd0.2" {
		t.Errorf("it came as %v: the one that hangs may have let that stay in", came)
	}
}

// TestAllSocketsMove shuts one of two: both are made anew, because what the kernel
// sends by the other one must not overtake what is left of the first.
func TestAllSocketsMove(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	c := config(s)
	c.Connections = 2
	k.mustAttach(c)
	k.mu.Lock()
	unix.Shutdown(k.devices[0].fds[1], unix.SHUT_RDWR) // as its request timer would
	k.mu.Unlock()
	eventually(t, "two new sockets", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		fds := k.devices[0].fds
		return len(s.came()) >= 4 && !dead(fds[0]) && !dead(fds[1])
	})
}

func TestItWaitsForAServer(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	s.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Attach(ctx, k, config(s)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("without a server: %v", err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		time.Sleep(20 * time.Millisecond)
		s.start()
	}()
	k.mustAttach(config(s))
	<-started // it may serve before it is noted that the test has to end it
}

func TestWhatCanNeverBe(t *testing.T) {
	for name, tc := range map[string]struct {
		serve nbd.Export
		conf  func(*Config)
		want  string
	}{
		"no such export":     {nbd.Export{}, func(*Config) {}, "gone"},
		"blocks of 64 KiB":   {nbd.Export{Name: "vol", Size: 1 << 20, MinBlock: 64 << 10, PreferredBlock: 64 << 10}, func(*Config) {}, "largest block"},
		"less than a block":  {nbd.Export{Name: "vol", Size: 100}, func(*Config) {}, "less than a block"},
		"odd block size":     {volume, func(c *Config) { c.Block = 1000 }, "block size"},
		"half a second":      {volume, func(c *Config) { c.Timeout = 1500 * time.Millisecond }, "whole seconds"},
		"too many sockets":   {volume, func(c *Config) { c.Connections = 17 }, "connections"},
		"no server is named": {volume, func(c *Config) { c.Servers = nil }, "no server"},
	} {
		t.Run(name, func(t *testing.T) {
			k, s := newFakeKernel(t), newServer(t)
			s.serve(tc.serve)
			c := config(s)
			tc.conf(&c)
			_, err := k.attach(c)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if _, sockets := k.of(0); sockets != 0 {
				t.Error("there is a device nevertheless")
			}
		})
	}
}

// TestAnotherExport finds something else under the name: the device must fail rather
// than show it.
func TestAnotherExport(t *testing.T) {
	for name, tc := range map[string]struct {
		becomes nbd.Export
		want    error
	}{
		"made anew": {nbd.Export{Name: "vol", Description: "volume 2", Size: 1 << 20}, ErrReplaced},
		"smaller":   {nbd.Export{Name: "vol", Description: "volume 1", Size: 1 << 19}, ErrReplaced},
		"deleted":   {nbd.Export{}, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			k, s := newFakeKernel(t), newServer(t)
			a := k.mustAttach(config(s))
			s.kill()
			s.serve(tc.becomes)
			s.start()
			if err := a.wait(t); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if _, sockets := k.of(0); sockets != 0 || k.disconnected != 1 {
				t.Errorf("%d sockets, disconnected %d times: the device must fail", sockets, k.disconnected)
			}
		})
	}
}

// TestOneServerDoesNotKnowIt has a server that is behind: that is no reason to give up.
func TestOneServerDoesNotKnowIt(t *testing.T) {
	k, s1, s2, s3 := newFakeKernel(t), newServer(t), newServer(t), newServer(t)
	s2.serve(nbd.Export{})
	s3.kill()
	a := k.mustAttach(config(s1, s2, s3))
	s1.kill()
	eventually(t, "the second one was asked twice", func() bool { return s2.refused.Load() >= 2 })
	s3.start()
	eventually(t, "attached to the third", func() bool { return len(s3.came()) == 1 })
	a.cancel()
	if err := a.wait(t); err != nil {
		t.Error(err)
	}
	if _, sockets := k.of(0); sockets != 1 {
		t.Error("an agent that is told to end must leave the device")
	}
}

// TestOneServerIsBehind has one that knows an earlier state of the export.
func TestOneServerIsBehind(t *testing.T) {
	for name, behind := range map[string]nbd.Export{
		"smaller":           {Name: "vol", Description: volume.Description, Size: 1 << 19},
		"another":           {Name: "vol", Description: "volume 0", Size: volume.Size},
		"with large blocks": {Name: "vol", Description: volume.Description, Size: volume.Size, MinBlock: 8192, PreferredBlock: 8192},
	} {
		t.Run(name, func(t *testing.T) {
			k, s1, s2, s3 := newFakeKernel(t), newServer(t), newServer(t), newServer(t)
			s2.serve(behind)
			k.mustAttach(config(s1, s2, s3))
			s1.kill()
			eventually(t, "attached to the third", func() bool { return len(s3.came()) == 1 })
			if len(s2.came()) == 0 || k.disconnected != 0 {
				t.Errorf("the second was asked %d times, the device ended %d times", len(s2.came()), k.disconnected)
			}
		})
	}
}

func TestItGrows(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	k.mustAttach(config(s))
	larger := volume
	larger.Size = 3 << 20
	s.kill()
	s.serve(larger)
	s.start()
	eventually(t, "3 MiB", func() bool { spec, _ := k.of(0); return spec.Size == 3<<20 })
}

// TestDetached has somebody disconnect the device: its agent ends, without an error.
func TestDetached(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	a := k.mustAttach(config(s))
	if err := Force(k, a.Device()); err != nil {
		t.Fatal(err)
	}
	if err := a.wait(t); err != nil {
		t.Error(err)
	}
	if err := Force(k, a.Device()); !errors.Is(err, ErrNotAttached) {
		t.Errorf("detached twice: %v", err)
	}
}

// TestDetachedWhileNoServerAnswers: the device is somebody else's when the servers come back,
// and say that what the agent wants is gone.
func TestDetachedWhileNoServerAnswers(t *testing.T) {
	k, s, theirs := newFakeKernel(t), newServer(t), newServer(t)
	a := k.mustAttach(config(s))
	s.kill()
	if err := Force(k, a.Device()); err != nil {
		t.Fatal(err)
	}
	p, err := dial(t.Context(), theirs.at, "vol", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := k.Connect(0, &Spec{Size: 4096, Block: 512, Timeout: time.Second, Backend: "qemu"}, p.fds); err != nil {
		t.Fatal(err)
	}
	if err := a.wait(t); err != nil {
		t.Errorf("an agent without its device: %v", err)
	}
	s.serve(nbd.Export{})
	s.start()
	if _, sockets := k.of(0); sockets != 1 || k.disconnected != 1 {
		t.Errorf("%d sockets, disconnected %d times: the device is somebody else's now", sockets, k.disconnected)
	}
}

// TestForeignDevices are neither taken nor disconnected.
func TestForeignDevices(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	theirs := &Spec{Size: 4096, Block: 512, Timeout: time.Second, Backend: "qemu"}
	p, err := dial(t.Context(), s.at, "vol", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := k.Connect(0, theirs, p.fds); err != nil {
		t.Fatal(err)
	}
	k.busy[1] = true // free in sysfs, and taken when it is asked for
	if a := k.mustAttach(config(s)); a.Device().Index != 2 {
		t.Errorf("it has device %d, want 2", a.Device().Index)
	}
	c := config(s)
	c.Device = &Device{0}
	if _, err := k.attach(c); !errors.Is(err, errTaken) {
		t.Errorf("somebody else's device: %v", err)
	}
	for name, do := range map[string]func() error{
		"detach": func() error { return Detach(k, Device{0}) }, "by force": func() error { return Force(k, Device{0}) },
	} {
		if err := do(); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k.disconnected != 0 {
		t.Error("somebody else's device was disconnected")
	}
}

// TestAdoption takes over what an agent left that was killed: the kernel holds its
// sockets, until the server ends the earlier stay.
func TestAdoption(t *testing.T) {
	k, s1, s2 := newFakeKernel(t), newServer(t), newServer(t)
	first := k.mustAttach(config(s1))
	c := config(s2)
	c.Device = &Device{0}
	if _, err := k.attach(c); !errors.Is(err, errTaken) {
		t.Fatalf("its agent lives: %v", err)
	}
	first.cancel() // as if killed: the device stays
	first.wait(t)
	other := c
	other.Owner = func(Device) string { return "vol2@test" }
	if _, err := k.attach(other); !errors.Is(err, errTaken) {
		t.Fatalf("another owner takes it over: %v", err)
	}
	a := k.mustAttach(c)
	if !a.adopted || a.size != 1<<20 || a.about != volume.Description {
		t.Errorf("adopted %v, %d bytes, %q", a.adopted, a.size, a.about)
	}
	eventually(t, "the new sockets are offered", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.handed > 1 })
	s1.kill() // ends what the dead agent had
	eventually(t, "the new socket is taken", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return !dead(k.devices[0].fds[0])
	})
}

// TestAdoptionWithoutADevice starts an agent again as it was started the first time,
// without saying which device.
func TestAdoptionWithoutADevice(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	first := k.mustAttach(config(s))
	if second := k.mustAttach(config(s)); second.Device().Index != 1 {
		t.Errorf("beside a living agent it has device %d", second.Device().Index)
	}
	first.cancel()
	first.wait(t)
	if again := k.mustAttach(config(s)); again.Device().Index != 0 || !again.adopted {
		t.Errorf("it has device %d, not the one that was left", again.Device().Index)
	}
	named := config(s)
	named.Owner = func(Device) string { return "vol@name" }
	k.mustAttach(named)
	if _, err := k.attach(named); !errors.Is(err, errTaken) {
		t.Errorf("a second device of one name: %v", err)
	}
}

// TestAdoptionByMistake starts an agent that can't keep the device: with servers that do
// not know the export, and with another number of sockets. The device must live on.
func TestAdoptionByMistake(t *testing.T) {
	k, s, other := newFakeKernel(t), newServer(t), newServer(t)
	other.serve(nbd.Export{})
	first := k.mustAttach(config(s))
	first.cancel()
	first.wait(t)
	c := config(other)
	c.Device = &Device{0}
	a := k.mustAttach(c)
	eventually(t, "the wrong server was asked twice", func() bool { return other.refused.Load() >= 2 })
	a.cancel()
	if err := a.wait(t); err != nil || k.disconnected != 0 {
		t.Fatalf("%v, disconnected %d times", err, k.disconnected)
	}
	c = config(s)
	c.Device, c.Connections = &Device{0}, 3
	a = k.mustAttach(c)
	if a.conf.Connections != 1 || !a.adopted {
		t.Errorf("%d connections, want the one that it has", a.conf.Connections)
	}
	k.mu.Lock()
	unix.Shutdown(k.devices[0].fds[0], unix.SHUT_RDWR) // as the server would
	k.mu.Unlock()
	eventually(t, "a new socket", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return !dead(k.devices[0].fds[0])
	})
}

// TestAdoptionOfAnotherVolume must not happen either: the device remembers what it was.
func TestAdoptionOfAnotherVolume(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	first := k.mustAttach(config(s))
	first.cancel()
	first.wait(t)
	s.serve(nbd.Export{Name: "vol", Description: "volume 2", Size: 1 << 20})
	c := config(s)
	c.Device = &Device{0}
	if err := k.mustAttach(c).wait(t); !errors.Is(err, ErrReplaced) {
		t.Errorf("%v, want %v", err, ErrReplaced)
	}
}

// TestAForeignServerHasTime: nothing is known of the order in which it does what an earlier
// connection asked for, so that it must not be asked twice without need.
func TestAForeignServerHasTime(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	c := config(s)
	c.Export = nil
	k.mustAttach(c)
	if spec, _ := k.of(0); spec.Timeout != ForeignTimeout {
		t.Errorf("a request has %v, want %v", spec.Timeout, ForeignTimeout)
	}
}

func TestParseDevice(t *testing.T) {
	for path, want := range map[string]int{"/dev/nbd0": 0, "nbd12": 12, "/dev/nbd": -1, "/dev/nbd01": -1, "/dev/nbd0p1": -1, "/dev/sda": -1, "": -1} {
		if d, err := ParseDevice(path); want < 0 != (err != nil) || err == nil && d.Index != want {
			t.Errorf("%q is %v, %v", path, d, err)
		}
	}
}

// TestADisconnectedDeviceIsNotTakenOver: who was using it when it was disconnected still
// has it open, and sees errors whatever becomes of it.
func TestADisconnectedDeviceIsNotTakenOver(t *testing.T) {
	k, s := newFakeKernel(t), newServer(t)
	first := k.mustAttach(config(s))
	first.cancel()
	first.wait(t)
	k.mu.Lock()
	k.devices[0].close()
	delete(k.devices, 0) // and sysfs still has it, as while somebody holds it open
	k.mu.Unlock()
	c := config(s)
	c.Device = &Device{0}
	if _, err := k.attach(c); !errors.Is(err, errTaken) || !strings.Contains(err.Error(), "still has it open") {
		t.Errorf("%v", err)
	}
}
