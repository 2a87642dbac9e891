package mirror

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

func regionStore(t *testing.T, path string, boot byte) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Path: path, Size: testSize, Region: 64 << 10, BootID: func() ([16]byte, error) { return [16]byte{boot}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func tmp(t *testing.T) string { return filepath.Join(t.TempDir(), "store") }

type cutConn struct {
	*net.TCPConn
	cut *atomic.Bool
	n   int
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.n++; c.n > 1 && c.cut.Load() {
		c.TCPConn.Close()
		return 0, errors.New("cut while priming")
	}
	return c.TCPConn.Write(p)
}

// A replaced disk is compared in full, also if its first connection breaks before the
// machine heard of it.
func TestReplacedDiskWhoseFirstConnectionBreaks(t *testing.T) {
	local, old := regionStore(t, tmp(t), 1), regionStore(t, tmp(t), 1)
	r := newSite(t, old)
	var cut atomic.Bool
	c := open(t, Config{Store: local, Replicas: []string{r.addr}, Continue: true, LossTimeout: 100 * time.Millisecond, Timeout: time.Second,
		Wrap: func(conn net.Conn) (net.Conn, error) { return &cutConn{TCPConn: conn.(*net.TCPConn), cut: &cut}, nil }}).inSync()
	for off := int64(0); off < testSize; off += 64 << 10 {
		c.write(off, bytes.Repeat([]byte{1}, 4096))
	}
	if err := c.v.checkpoint(context.Background(), 77); err != nil {
		t.Fatal(err)
	}
	r.kill()
	c.until("absent", func() bool { return c.v.Status().Replicas[0].Standing == "absent" })
	r.store = regionStore(t, tmp(t), 1) // a new disk
	cut.Store(true)
	r.start()
	c.until("cut", func() bool { return c.v.Status().Replicas[0].Err != "" && containsCut(c.v.Status().Replicas[0].Err) })
	cut.Store(false)
	c.everywhere()
	c.v.Close()
	wantEqual(t, local, r.store)
}

func containsCut(s string) bool { return bytes.Contains([]byte(s), []byte("cut while priming")) }

// A sync and what came meanwhile are acknowledged by two goroutines of a replica.
func TestAcksInOnePiece(t *testing.T) {
	local := regionStore(t, tmp(t), 1)
	r := newSite(t, regionStore(t, tmp(t), 1))
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	var b []byte
	for _, a := range [][2]uint64{{10, 0}, {9, 9}} {
		h := wire.Header{Kind: wire.KindAck, Epoch: 1, Seq: a[0], Watermark: a[1], CRC: wire.Checksum(nil)}
		p := make([]byte, wire.HeaderSize)
		h.Encode(p)
		b = append(b, p...)
	}
	_, last, err := c.v.links[1].parse(b)
	if err != nil || last.Seq != 10 || last.Watermark != 9 {
		t.Errorf("%v: applied %d durable %d, want 10 and 9", err, last.Seq, last.Watermark)
	}
}

// B was primary meanwhile; A's record of who is in sync is of its own, earlier reign.
func TestStaleRecordIsNotTrusted(t *testing.T) {
	pa, pb := tmp(t), tmp(t)
	a, b := regionStore(t, pa, 1), regionStore(t, pb, 1)
	rb := newSite(t, b)
	c := open(t, Config{Store: a, Replicas: []string{rb.addr}}).inSync()
	c.write(0, bytes.Repeat([]byte{1}, 4096))
	if err := c.v.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.v.Close()
	rb.kill()
	// B serves, A is its replica
	ra := newSite(t, a)
	c = open(t, Config{Store: b, Replicas: []string{ra.addr}, Continue: true, LossTimeout: 100 * time.Millisecond}).inSync()
	c.write(0, bytes.Repeat([]byte{2}, 4096))
	ra.kill()
	c.until("absent", func() bool { return c.v.Status().Replicas[0].Standing == "absent" })
	for off := int64(0); off < testSize; off += 64 << 10 {
		c.write(off, bytes.Repeat([]byte{3}, 4096))
	}
	if err := c.v.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.v.Close()
	// an operator serves A again
	rb.start()
	c = open(t, Config{Store: a, Replicas: []string{rb.addr}})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.v.Wait(ctx); err != nil {
		t.Logf("refused: %v", err)
		return
	}
	c.everywhere()
	c.v.Close()
	wantEqual(t, a, b)
}

// The primary lost power; its replica in sync did not, and is not named.
func TestLossyWithoutItsReplica(t *testing.T) {
	for _, addr := range [][]string{nil, {"127.0.0.1:1"}} {
		pa := tmp(t)
		a, b := regionStore(t, pa, 1), regionStore(t, tmp(t), 1)
		rb := newSite(t, b)
		c := open(t, Config{Store: a, Replicas: []string{rb.addr}}).inSync()
		c.write(0, bytes.Repeat([]byte{1}, 4096))
		c.v.Close()
		a.Close()
		a = regionStore(t, pa, 2)
		v, err := Open(Config{Store: a, Replicas: addr, Continue: true, LossTimeout: 100 * time.Millisecond, Complete: func([]*Op) {}, Log: testLog(t)})
		if err != nil {
			t.Logf("refused: %v", err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if err := v.Wait(ctx); err == nil {
			t.Errorf("replicas %v: served a copy that may lack acknowledged writes, without a word", addr)
		}
		cancel()
		v.Close()
	}
}

// The same, and another store answers at the replica's address.
func TestLossyAndAnotherStore(t *testing.T) {
	pa := tmp(t)
	a, b := regionStore(t, pa, 1), regionStore(t, tmp(t), 1)
	rb := newSite(t, b)
	c := open(t, Config{Store: a, Replicas: []string{rb.addr}}).inSync()
	c.write(0, bytes.Repeat([]byte{1}, 4096))
	c.v.Close()
	a.Close()
	rb.kill()
	rb.store = regionStore(t, tmp(t), 1)
	rb.start()
	a = regionStore(t, pa, 2)
	c = open(t, Config{Store: a, Replicas: []string{rb.addr}})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := c.v.Wait(ctx); err == nil {
		t.Errorf("served a copy that may lack acknowledged writes, without a word")
	} else {
		t.Log(err)
	}
}

// A promotion that cannot make this copy durable ends, and says why.
func TestPromotionWhoseSyncFails(t *testing.T) {
	local := &faulty{Store: newStore(t, testSize)}
	local.inject(&local.sync, errors.New("EIO"))
	c := open(t, Config{Store: local})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.v.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait goes on for ever: %v", err)
	}
}
