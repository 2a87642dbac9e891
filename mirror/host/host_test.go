package host

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

func TestBothNodesServe(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a, b := c.attach("a", ""), c.attach("b", "")
	a.write(0, 1)
	b.wantRead(0, 1)
	b.write(8192, 2)
	a.wantRead(8192, 2)
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantEqual("a", "b")
}

func TestHandover(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a, b := c.attach("a", ""), c.attach("b", "")
	for i := range 10 {
		a.write(int64(i)*4096, byte(i))
		from, to := "a", "b"
		if i%2 == 1 {
			from, to = to, from
		}
		began := time.Now()
		if _, err := c.seat(from).HandOver(context.Background(), to); err != nil {
			t.Fatal(err)
		}
		b.wantRead(int64(i)*4096, byte(i))
		t.Logf("handed over and read in %v", time.Since(began))
		c.inSync(to, "a", "b")
	}
}

// TestStopHandsOver: a node that is stopped leaves nothing to wait for.
func TestStopHandsOver(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	b := c.attach("b", "")
	b.write(0, 1)
	c.nodes["a"].end()
	b.wantRead(0, 1)
	b.write(0, 2)
	c.inSync("b", "b")
	c.nodes["a"].start()
	c.do(control.AddNode("a", control.Node{Addr: c.nodes["a"].addr, ID: "a"}))
	c.inSync("b", "a", "b")
	c.attach("a", "").wantRead(0, 2)
}

// TestReplaceDeadNode: a replica moves to a new node while the volume is in use.
func TestReplaceDeadNode(t *testing.T) {
	c := newTestCluster(t, "a", "b", "c")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	for i := range int64(64) {
		a.write(i*65536, byte(i+1))
	}
	c.nodes["b"].end()
	a.write(0, 77)
	c.inSync("a", "a")
	c.do(control.ReplaceReplica("vol", 0, "b", "c"))
	load := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(load)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond): // leaves the new replica some of the machine
				data := bytes.Repeat([]byte{byte(i)}, 4096)
				if err := a.do(&mirror.Op{Kind: mirror.Write, Off: i%64*65536 + 8192, Len: 4096, Data: data}); err != nil {
					t.Errorf("a write meanwhile: %v", err)
				}
			}
		}
	}()
	c.inSync("a", "a", "c")
	close(stop)
	<-load
	if _, err := c.seat("a").HandOver(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	a.wantRead(0, 77)
	a.wantRead(65536, 2)
	c.nodes["a"].end()
	c.nodes["c"].end()
	c.wantEqual("a", "c")
}

// TestThirdReplica: a volume gets another copy while it is in use.
func TestThirdReplica(t *testing.T) {
	c := newTestCluster(t, "a", "b", "c")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.do(control.AddReplica("vol", 0, "c"))
	c.inSync("a", "a", "b", "c")
	a.write(4096, 2)
	c.nodes["a"].end()
	b := c.attach("b", "")
	b.wantRead(4096, 2)
	b.write(4096, 3)
}

// TestForced: an operator makes a copy the volume that lacks acknowledged writes. Who held
// it open is told; who opens it then has what that copy had.
func TestForced(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.nodes["b"].end()
	a.write(0, 2)
	c.inSync("a", "a")
	c.nodes["a"].end()
	c.nodes["b"].start()
	c.do(control.AddNode("b", control.Node{Addr: c.nodes["b"].addr, ID: "b"}))
	held := c.attach("b", "")
	read := held.start(&mirror.Op{Kind: mirror.Read, Len: 4096, Data: make([]byte, 4096)})
	c.do(control.Force("vol", 0, "b"))
	c.inSync("b", "b")
	if back := <-read; !errors.Is(back.Err, ErrForgot) {
		t.Errorf("a request from before the loss ended with %v", back.Err)
	}
	if err := held.do(&mirror.Op{Kind: mirror.Read, Len: 4096, Data: make([]byte, 4096)}); !errors.Is(err, ErrForgot) {
		t.Errorf("a request after the loss ended with %v", err)
	}
	c.attach("b", "").wantRead(0, 1)
	c.nodes["a"].start()
	c.do(control.AddNode("a", control.Node{Addr: c.nodes["a"].addr, ID: "a"}))
	c.inSync("b", "a", "b")
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantEqual("a", "b")
}

// TestNamedClientMoves: what is still under way of a client that attached elsewhere
// since is refused.
func TestNamedClientMoves(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	before := c.attach("b", "vm")
	before.write(0, 1)
	after := c.attach("a", "vm")
	after.wantRead(0, 1)
	after.write(0, 2)
	if err := before.do(&mirror.Op{Kind: mirror.Write, Len: 4096, Data: make([]byte, 4096)}); err == nil {
		t.Error("a write of the old generation was done")
	}
	again := c.attach("b", "vm")
	again.wantRead(0, 2)
	if err := after.do(&mirror.Op{Kind: mirror.Write, Len: 4096, Data: make([]byte, 4096)}); err == nil {
		t.Error("a write of the old generation was done at the primary's node")
	}
}

func TestDelete(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.do(control.DeleteVolume("vol"))
	c.until("refused", func() bool {
		return a.do(&mirror.Op{Kind: mirror.Read, Len: 4096, Data: make([]byte, 4096)}) != nil
	})
	c.until("files removed", func() bool {
		files, err := filepath.Glob(filepath.Join(c.nodes["b"].dir, "*"))
		return err == nil && len(files) == 0
	})
}
