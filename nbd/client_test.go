package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// connect dials the default export at a unix socket.
func connect(t testing.TB, path string) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestParseURI(t *testing.T) {
	for _, tc := range []struct{ uri, network, address, export, err string }{
		{uri: "nbd://host/vol", network: "tcp", address: "host:10809", export: "vol"},
		{uri: "nbd://[::1]:1234", network: "tcp", address: "[::1]:1234"},
		{uri: "nbd+unix:///a%20b?socket=/tmp/s", network: "unix", address: "/tmp/s", export: "a b"},
		{uri: "unix:/tmp/s", network: "unix", address: "/tmp/s"},
		{uri: "tcp:[::1]:99", network: "tcp", address: "[::1]:99"},
		{uri: "nbd+unix:///x", err: "neither a host nor a socket"},
		{uri: "nbds://host", err: "unknown form"},
		{uri: "/tmp/s", err: "unknown form"},
	} {
		network, address, export, err := parseURI(tc.uri)
		if network != tc.network || address != tc.address || export != tc.export {
			t.Errorf("%s: %s, %s, %s", tc.uri, network, address, export)
		}
		if (err == nil) != (tc.err == "") || err != nil && !bytes.Contains([]byte(err.Error()), []byte(tc.err)) {
			t.Errorf("%s: error %v, want %q", tc.uri, err, tc.err)
		}
	}
}

func TestClientEveryCommand(t *testing.T) {
	c := connect(t, serve(t, Config{Exports: []Export{disk(1 << 20)}}))
	want := bytes.Repeat([]byte{7}, 300<<10)
	if _, err := c.WriteFlags(want, 100, FlagFUA); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Flush(), c.Cache(0, 1<<20), c.Trim(0, 50, FlagFUA), c.WriteZeroes(164<<10, 64<<10, FlagNoHole|FlagFUA)); err != nil {
		t.Fatal(err)
	}
	clear(want[164<<10-100 : 228<<10-100])
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 100); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back: %v, equal %v", err, bytes.Equal(got, want))
	}
	if n, err := c.ReadAt(got, 1<<20-10); n != 10 || err != io.EOF {
		t.Fatalf("read across the end: %d, %v", n, err)
	}
	extents, err := c.BlockStatus(0, 1<<20, 0)
	if err != nil || len(extents) != 2 || extents[0] != (Extent{Length: 320 << 10}) || extents[1] != (Extent{Length: 704 << 10, Hole: true, Zero: true}) {
		t.Fatalf("block status: %v, %v", extents, err)
	}
	if extents, err = c.BlockStatus(0, 64<<10, FlagReqOne); err != nil || len(extents) != 1 {
		t.Fatalf("block status of one extent: %v, %v", extents, err)
	}
	if err := c.Trim(1<<20, 1, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("trim past the end: %v", err)
	}
	if _, err := c.WriteAt([]byte{1}, 1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write past the end: %v", err)
	}
}

// TestClientConcurrent has many callers on one connection, with replies out of
// order, and checks every read against what its region was last written with.
func TestClientConcurrent(t *testing.T) {
	m := newMemory()
	m.later = shuffled(t)
	e := disk(64 << 20)
	e.Backend = m
	c := connect(t, serve(t, Config{Exports: []Export{e}}))
	var callers sync.WaitGroup
	for id := range 32 {
		callers.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(id)))
			base := int64(id) << 21
			for range 40 {
				p := make([]byte, 1+rnd.IntN(1<<(4+rnd.IntN(17))))
				for i := range p {
					p[i] = byte(rnd.Uint32())
				}
				off := base + rnd.Int64N(1<<21-int64(len(p)))
				got := make([]byte, len(p))
				_, werr := c.WriteAt(p, off)
				_, rerr := c.ReadAt(got, off)
				if werr != nil || rerr != nil || !bytes.Equal(p, got) {
					t.Errorf("caller %d, %d bytes at %d: %v, %v, equal %v", id, len(p), off, werr, rerr, bytes.Equal(p, got))
					return
				}
			}
		})
	}
	callers.Wait()
}

// shuffled completes requests from another goroutine, in random order and in
// batches that mix what Submit was called with.
func shuffled(t testing.TB) func([]*Request) {
	in := make(chan []*Request, 1024)
	var worker sync.WaitGroup
	worker.Go(func() {
		rnd := rand.New(rand.NewPCG(2, 3))
		for held := range in {
			for more := true; more && len(held) < 64; {
				select {
				case b, ok := <-in:
					held, more = append(held, b...), ok
				default:
					more = false
				}
			}
			rnd.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			cut := rnd.IntN(len(held) + 1)
			Complete(held[:cut])
			Complete(held[cut:])
		}
	})
	t.Cleanup(func() { close(in); worker.Wait() })
	return func(b []*Request) { in <- b }
}

func TestClientErrors(t *testing.T) {
	errs := map[uint64]error{1: syscall.EIO, 2: syscall.ENOSPC, 3: syscall.EINVAL, 4: syscall.EROFS, 5: syscall.EOVERFLOW,
		6: syscall.ESHUTDOWN, 7: errors.New("no number"), 8: syscall.EDQUOT, 9: syscall.ENOMEM, 10: syscall.Errno(0), 11: syscall.ENOTSUP}
	want := map[uint64]error{4: syscall.EPERM, 7: syscall.EIO, 8: syscall.ENOSPC, 10: syscall.EIO}
	m := newMemory()
	m.fault = func(r *Request) error { return errs[r.Offset] }
	e := disk(1 << 20)
	e.Backend = m
	c := connect(t, serve(t, Config{Exports: []Export{e}}))
	for at, err := range errs {
		if w := want[at]; w != nil {
			err = w
		}
		if _, got := c.ReadAt(make([]byte, 5000), int64(at)); !errors.Is(got, err) {
			t.Errorf("read at %d: %v, want %v", at, got, err)
		}
		if _, got := c.WriteAt(make([]byte, 50000), int64(at)); !errors.Is(got, err) {
			t.Errorf("write at %d: %v, want %v", at, got, err)
		}
	}
	if _, err := c.ReadAt(make([]byte, 100), 0); err != nil {
		t.Errorf("the connection does not live on: %v", err)
	}
}

func TestClientClose(t *testing.T) {
	e, held := holding()
	c := connect(t, serve(t, Config{Exports: []Export{e}}))
	result := make(chan error, 1)
	go func() { result <- c.Flush() }()
	b := <-held
	c.Close()
	if err := <-result; err == nil {
		t.Error("the flush in flight succeeded")
	}
	if err := c.Flush(); err == nil {
		t.Error("a flush after Close succeeded")
	}
	Complete(b)
}
