package mirror

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/mirror/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSize = 4 << 20

// site is a replica in this process that can be stopped and started again.
type site struct {
	t     *testing.T
	store Store
	addr  string
	taken bool // whatever the store holds may be overwritten
	stop  context.CancelFunc
	over  chan error
}

func newStore(t *testing.T, size int64) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Path: filepath.Join(t.TempDir(), "store"), Size: size, Region: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ownHost is not where connections come from, which is 127.0.0.1: one of them would
// take the port of a site that is down.
const ownHost = "127.0.1.1:0"

func newSite(t *testing.T, s Store) *site {
	t.Helper()
	r := &site{t: t, store: s, addr: ownHost}
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *site) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := Listen(ctx, r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr, r.stop, r.over = ln.Addr().String(), cancel, make(chan error, 1)
	rep := NewReplica(ReplicaConfig{Store: r.store, Overwrite: r.taken, Log: testLog(r.t)})
	go func() { r.over <- rep.Serve(ctx, ln) }()
}

func (r *site) kill() {
	if r.stop != nil {
		r.stop()
		if err := <-r.over; err != nil {
			r.t.Error(err)
		}
		r.stop = nil
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// client turns Submit and Complete into calls.
type client struct {
	t *testing.T
	v *Volume
}

func open(t *testing.T, conf Config) *client {
	t.Helper()
	c := &client{t: t}
	conf.Complete = func(ops []*Op) {
		for _, op := range ops {
			op.Tag.(chan struct{}) <- struct{}{}
		}
	}
	conf.Log = testLog(t)
	v, err := Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	c.v = v
	t.Cleanup(v.Close)
	return c
}

func (c *client) inSync() *client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.v.Wait(ctx); err != nil {
		c.t.Fatal(err)
	}
	return c.everywhere()
}

// everywhere waits until every replica is in sync.
func (c *client) everywhere() *client {
	c.t.Helper()
	return c.until("every replica in sync", func() bool {
		return !slices.ContainsFunc(c.v.Status().Replicas, func(r ReplicaStatus) bool { return r.Standing != "in sync" })
	})
}

// refused waits until the first replica has said why it does not serve the volume, and fails
// unless Wait says so too.
func (c *client) refused(why string) {
	c.t.Helper()
	c.until("refused", func() bool { return strings.Contains(c.v.Status().Replicas[0].Err, why) })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.v.Wait(ctx); err == nil || !strings.Contains(err.Error(), why) {
		c.t.Errorf("Wait: %v, want a refusal: %s", err, why)
	}
}

// suspended waits until the volume has noticed that a replica is gone.
func (c *client) suspended() *client {
	c.t.Helper()
	return c.until("a replica lost", func() bool {
		return slices.ContainsFunc(c.v.Status().Replicas, func(r ReplicaStatus) bool { return r.Standing == "lost" })
	})
}

// until waits for something that the volume's status tells.
func (c *client) until(what string, is func() bool) *client {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for !is() {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			c.t.Fatalf("not %s: %+v", what, c.v.Status())
		}
	}
	return c
}

// begin submits op; the channel tells when it is back.
func (c *client) begin(op *Op) <-chan struct{} {
	done := make(chan struct{}, 1)
	op.Tag = done
	if op.Data != nil {
		op.Len = int64(len(op.Data))
	}
	c.v.Submit([]*Op{op})
	return done
}

func (c *client) do(op *Op) error {
	c.t.Helper()
	select {
	case <-c.begin(op):
		return op.Err
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%v at %d+%d hangs", op.Kind, op.Off, op.Len)
		return nil
	}
}

func (c *client) write(off int64, data []byte) {
	c.t.Helper()
	if err := c.do(&Op{Kind: Write, Off: off, Data: data}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(off, n int64) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if err := c.do(&Op{Kind: Read, Off: off, Data: p}); err != nil {
		c.t.Fatal(err)
	}
	return p
}

func contents(t *testing.T, s Store) []byte {
	t.Helper()
	p := make([]byte, s.Size())
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func wantEqual(t *testing.T, stores ...Store) {
	t.Helper()
	first := contents(t, stores[0])
	for i, s := range stores[1:] {
		if !bytes.Equal(first, contents(t, s)) {
			t.Errorf("copy %d differs from the primary's", i+1)
		}
	}
}

// load writes, zeroes, reads and flushes at random from several goroutines
// until stopped, each in its own part, checking every read against what it
// wrote.
func (c *client) load(workers int, stop *atomic.Bool) *sync.WaitGroup {
	var wg sync.WaitGroup
	part := int64(testSize / workers)
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			base := int64(w) * part
			want := make([]byte, part)
			if err := c.do(&Op{Kind: Zero, Off: base, Len: part}); err != nil {
				c.t.Error(err)
			}
			for n := 0; !stop.Load(); n++ {
				off := rng.Int64N(part/512-64) * 512
				size := (1 + rng.Int64N(64)) * 512
				op := &Op{Off: base + off, Len: size, FUA: rng.IntN(20) == 0}
				switch k := rng.IntN(10); {
				case k < 5:
					op.Kind, op.Data = Write, bytes.Repeat([]byte{byte(1 + n%255)}, int(size))
					copy(want[off:], op.Data)
				case k < 6:
					op.Kind = Zero
					clear(want[off : off+size])
				case k < 7:
					*op = Op{Kind: Flush}
				default:
					op.Kind, op.Data = Read, make([]byte, size)
				}
				if err := c.do(op); err != nil {
					c.t.Error(err)
					return
				}
				if op.Kind == Read && !bytes.Equal(op.Data, want[off:off+size]) {
					c.t.Errorf("read at %d+%d is not what was written", op.Off, size)
					return
				}
			}
		})
	}
	return &wg
}

func TestEveryCopyHasEveryWrite(t *testing.T) {
	for _, durable := range []bool{false, true} {
		local, a, b := newStore(t, testSize), newStore(t, testSize), newStore(t, testSize)
		c := open(t, Config{Volume: "v", Store: local, Durable: durable,
			Replicas: []string{newSite(t, a).addr, newSite(t, b).addr}}).inSync()
		var stop atomic.Bool
		wg := c.load(4, &stop)
		time.AfterFunc(500*time.Millisecond, func() { stop.Store(true) })
		wg.Wait()
		wantEqual(t, local, a, b)
	}
}

func TestLargeWrites(t *testing.T) {
	const size = 80 << 20
	local, remote := newStore(t, size), newStore(t, size)
	c := open(t, Config{Store: local, Replicas: []string{newSite(t, remote).addr}}).inSync()
	big := make([]byte, 64<<20)
	for i := range big {
		big[i] = byte(i >> 12)
	}
	var waits []<-chan struct{}
	for off := int64(0); off <= 16<<20; off += 4 << 20 {
		waits = append(waits, c.begin(&Op{Kind: Write, Off: off, Data: big}))
	}
	for _, w := range waits {
		<-w
	}
	wantEqual(t, local, remote)
}

func TestReplicasAreMadeEqualAtStart(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	for off := int64(0); off < testSize; off += 64 << 10 {
		data := bytes.Repeat([]byte{byte(off >> 16)}, 4096)
		if err := errors.Join(local.WriteAt(data, off), remote.WriteAt(data, off+4096*(off>>16&3))); err != nil {
			t.Fatal(err)
		}
	}
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}})
	c.refused("--overwrite")
	r.kill()
	r.taken = true
	r.start()
	c.inSync()
	wantEqual(t, local, remote)
}

func TestLostReplicaSuspendsWritesUntilItIsBack(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	c.write(0, []byte("before"))
	r.kill()
	wrote := c.begin(&Op{Kind: Write, Off: 4096, Data: []byte("during")})
	flushed := c.begin(&Op{Kind: Flush})
	overlapping := &Op{Kind: Read, Off: 4096, Data: make([]byte, 6)}
	readBack := c.begin(overlapping)
	if got := c.read(0, 6); string(got) != "before" {
		t.Errorf("read %q while suspended", got)
	}
	for name, ch := range map[string]<-chan struct{}{"write": wrote, "flush": flushed, "read of the write": readBack} {
		select {
		case <-ch:
			t.Errorf("the %s completed without the replica", name)
		case <-time.After(50 * time.Millisecond):
		}
	}
	r.start()
	<-wrote
	<-flushed
	<-readBack
	if string(overlapping.Data) != "during" {
		t.Errorf("read %q", overlapping.Data)
	}
	wantEqual(t, local, remote)
}

func TestReplicaComesAndGoesUnderLoad(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	var stop atomic.Bool
	wg := c.load(4, &stop)
	for range 10 {
		r.kill()
		c.suspended()
		r.start()
		c.inSync()
	}
	stop.Store(true)
	wg.Wait()
	wantEqual(t, local, remote)
}

func TestConnectionCutsUnderLoad(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	relay := newCutter(t, newSite(t, remote).addr)
	c := open(t, Config{Store: local, Replicas: []string{relay.ln.Addr().String()}}).inSync()
	var stop atomic.Bool
	wg := c.load(4, &stop)
	for range 20 {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // lets some load run: a cut at any moment is legal
		relay.cut()
		c.inSync()
	}
	stop.Store(true)
	wg.Wait()
	wantEqual(t, local, remote)
}

// A replica whose store is another than the one that was in sync has nothing of
// what it is taken to have: it must be left out, filled, and taken in again.
func TestAnotherStoreIsNotInSync(t *testing.T) {
	local, blank := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, newStore(t, testSize))
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	c.write(0, []byte("acknowledged"))
	r.kill()
	c.suspended()
	r.store = blank
	r.start()
	c.inSync()
	wantEqual(t, local, blank)
	if m := blank.Meta(); !m.Complete {
		t.Errorf("the replica in sync does not know that it is a full copy: %+v", m)
	}
}

// Two replicas, one of which comes back empty while the other is away, with writes
// of every state in flight.
func TestReplicaComesBackEmptyWhileAnotherIsAway(t *testing.T) {
	local, blank, other := newStore(t, testSize), newStore(t, testSize), newStore(t, testSize)
	a, b := newSite(t, newStore(t, testSize)), newSite(t, other)
	c := open(t, Config{Store: local, Replicas: []string{a.addr, b.addr}}).inSync()
	var stop atomic.Bool
	wg := c.load(4, &stop)
	b.kill()
	c.suspended()
	a.kill()
	a.store = blank
	a.start()
	b.start()
	c.inSync()
	stop.Store(true)
	wg.Wait()
	wantEqual(t, local, blank, other)
}

// A new, empty store at the primary must not empty a replica that holds data.
func TestNewStoreDoesNotOverwriteAReplica(t *testing.T) {
	remote := newStore(t, testSize)
	if err := remote.WriteAt([]byte("precious"), 4096); err != nil {
		t.Fatal(err)
	}
	r := newSite(t, remote)
	c := open(t, Config{Store: newStore(t, testSize), Replicas: []string{r.addr}})
	c.refused("nothing was overwritten")
	if got := contents(t, remote)[4096:]; string(got[:8]) != "precious" {
		t.Error("the replica was overwritten")
	}
}

func TestCloseEndsWhatIsInFlight(t *testing.T) {
	local, remote := newStore(t, testSize), newStore(t, testSize)
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	r.kill()
	write := &Op{Kind: Write, Data: []byte("never acknowledged")}
	read := &Op{Kind: Read, Data: make([]byte, 5)}
	waits := []<-chan struct{}{c.begin(write), c.begin(read)}
	c.v.Close()
	for _, w := range waits {
		<-w
	}
	for _, op := range []*Op{write, read} {
		if !errors.Is(op.Err, ErrClosed) || !errors.Is(op.Err, syscall.ESHUTDOWN) {
			t.Errorf("%v ended with %v, want ErrClosed", op.Kind, op.Err)
		}
	}
	if err := c.do(&Op{Kind: Flush}); !errors.Is(err, ErrClosed) {
		t.Errorf("flush after Close: %v, want ErrClosed", err)
	}
}
