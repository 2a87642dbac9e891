package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
	"lockstep/mirror/wire"
)

// faulty is a store whose calls fail while told to.
type faulty struct {
	Store
	write, sync, read atomic.Pointer[error]
}

func (f *faulty) inject(p *atomic.Pointer[error], err error) { p.Store(&err) }

func fault(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *faulty) WriteAt(p []byte, off int64) error {
	return errors.Join(fault(&f.write), f.Store.WriteAt(p, off))
}

func (f *faulty) Sync() error {
	if err := fault(&f.sync); err != nil {
		return fmt.Errorf("%w (%w)", store.ErrBroken, err) // as the real one says it
	}
	return f.Store.Sync()
}

func (f *faulty) ReadAt(p []byte, off int64) error {
	return errors.Join(fault(&f.read), f.Store.ReadAt(p, off))
}

// ReadCached never has anything, so that reads take the slow way.
func (f *faulty) ReadCached([]byte, int64) error { return errors.New("not cached") }

func TestLocalWriteFailureStopsWritesUntilReopened(t *testing.T) {
	local, remote := &faulty{Store: newStore(t, testSize)}, newStore(t, testSize)
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	local.inject(&local.write, syscall.ENOSPC)
	if err := c.do(&Op{Kind: Write, Data: make([]byte, 512)}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v, want ENOSPC", err)
	}
	local.inject(&local.write, nil)
	if err := c.do(&Op{Kind: Write, Data: make([]byte, 512)}); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("later write: %v, want ErrFailed because of ENOSPC", err)
	}
	c.read(0, 512)
	local.Store.WriteAt([]byte("only here"), 0) // what the failed write may have left
	c.v.Close()
	open(t, Config{Store: local.Store, Replicas: []string{r.addr}}).inSync()
	wantEqual(t, local.Store, remote)
}

func TestLocalReadFailureIsThatReads(t *testing.T) {
	local := &faulty{Store: newStore(t, testSize)}
	c := open(t, Config{Store: local})
	local.inject(&local.read, syscall.EIO)
	if err := c.do(&Op{Kind: Read, Data: make([]byte, 512)}); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v, want EIO", err)
	}
	local.inject(&local.read, nil)
	c.write(0, []byte("still works"))
	if got := c.read(0, 5); string(got) != "still" {
		t.Errorf("read %q", got)
	}
}

func TestReplicaWhoseWriteFailsIsRetried(t *testing.T) {
	local, remote := newStore(t, testSize), &faulty{Store: newStore(t, testSize)}
	c := open(t, Config{Store: local, Replicas: []string{newSite(t, remote).addr}}).inSync()
	remote.inject(&remote.write, syscall.ENOSPC)
	wrote := c.begin(&Op{Kind: Write, Data: []byte("held")})
	c.suspended()
	if err := c.v.links[1].lastError(); err != nil && !strings.Contains(err.Error(), "no space") {
		t.Errorf("the link says %v, want the replica's reason", err)
	}
	select {
	case <-wrote:
		t.Error("acknowledged without the replica")
	default:
	}
	remote.inject(&remote.write, nil)
	<-wrote
	wantEqual(t, local, remote.Store)
}

func TestReplicaWhoseSyncFailedAcceptsNothing(t *testing.T) {
	local, remote := newStore(t, testSize), &faulty{Store: newStore(t, testSize)}
	r := newSite(t, remote)
	c := open(t, Config{Store: local, Replicas: []string{r.addr}}).inSync()
	remote.inject(&remote.sync, syscall.EIO)
	flushed := c.begin(&Op{Kind: Flush})
	c.suspended()
	remote.inject(&remote.sync, nil) // its fsync must not be retried all the same
	c.until("refused by the replica", func() bool { return strings.Contains(c.v.Status().Replicas[0].Err, "store failed") })
	select {
	case <-flushed:
		t.Error("flush acknowledged after the replica's sync failed")
	default:
	}
	r.kill() // a new process may be trusted again: it is compared in full and synced
	r.start()
	<-flushed
}

func TestSecondPrimaryIsRefused(t *testing.T) {
	remote := newStore(t, testSize)
	r := newSite(t, remote)
	first := open(t, Config{Store: newStore(t, testSize), Replicas: []string{r.addr}}).inSync()
	second := open(t, Config{Store: newStore(t, testSize), Replicas: []string{r.addr}})
	second.refused("another primary")
	first.write(0, []byte("undisturbed"))
	wantEqual(t, first.v.conf.Store, remote)
}

// Hellos of one session that come all at once replace each other, and the last
// one is served: none leaves the replica waiting for a session that never ends.
func TestManyHellosAtOnce(t *testing.T) {
	r := newSite(t, newStore(t, testSize))
	for range 50 {
		var wg sync.WaitGroup
		for range 8 {
			fc := raw(t, r, 1, wire.ID{1})
			wg.Go(func() {
				fc.expect(wire.KindWelcome) // or the end: replaced
				fc.conn.Close()
			})
		}
		wg.Wait()
	}
	for range 100 {
		if _, _, err := raw(t, r, 1, wire.ID{1}).expect(wire.KindWelcome); err == nil {
			return
		}
	}
	t.Error("the replica serves nobody any more")
}

func TestAReplicaStaysWithItsVolume(t *testing.T) {
	r := newSite(t, newStore(t, testSize))
	first := open(t, Config{Volume: "one", Store: newStore(t, testSize), Replicas: []string{r.addr}}).inSync()
	first.v.Close()
	second := open(t, Config{Volume: "two", Store: newStore(t, testSize), Replicas: []string{r.addr}})
	second.refused("holds another volume")
}

func TestSizesMustMatch(t *testing.T) {
	r := newSite(t, newStore(t, testSize))
	c := open(t, Config{Store: newStore(t, 2*testSize), Replicas: []string{r.addr}})
	c.refused("same --size")
}

// raw is a primary made of bare frames, to say what a real one never would.
func raw(t *testing.T, r *site, epoch uint64, session wire.ID) *frameConn {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fc := newFrameConn(conn, epoch)
	hello := wire.Hello{Size: testSize, Session: session, ID: wire.ID{7}}
	if err := fc.write(wire.Header{Kind: wire.KindHello}, hello.Append(nil)); err != nil {
		t.Fatal(err)
	}
	return fc
}

func TestFencing(t *testing.T) {
	r := newSite(t, newStore(t, testSize))
	old := raw(t, r, 5, wire.ID{1})
	if _, _, err := old.expect(wire.KindWelcome); err != nil {
		t.Fatal(err)
	}
	newer := raw(t, r, 6, wire.ID{2})
	if _, _, err := newer.expect(wire.KindWelcome); err != nil {
		t.Errorf("a higher epoch must take over: %v", err)
	}
	for open := true; open; {
		_, _, err := old.read()
		if open = err == nil; errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the old primary's connection is still open")
		}
	}
	again := raw(t, r, 5, wire.ID{1})
	if _, _, err := again.expect(wire.KindWelcome); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "that epoch is over") {
		t.Errorf("a lower epoch: %v, want a refusal", err)
	}
}

// Whatever a replica can't accept it names, applies nothing of and ends the
// connection.
func TestReplicaNamesBadFrames(t *testing.T) {
	data := bytes.Repeat([]byte{9}, 512)
	for name, bad := range map[string]func(fc *frameConn) error{
		"frame seq 1 after 2": func(fc *frameConn) error {
			fc.write(wire.Header{Kind: wire.KindFlush, Seq: 2}, nil)
			return fc.write(wire.Header{Kind: wire.KindWrite, Seq: 1, Length: 512}, data)
		},
		"outside the volume": func(fc *frameConn) error {
			return fc.write(wire.Header{Kind: wire.KindWrite, Seq: 1, Offset: testSize, Length: 512}, data)
		},
		"epoch 2 in a session of epoch 1": func(fc *frameConn) error {
			fc.epoch = 2
			return fc.write(wire.Header{Kind: wire.KindWrite, Seq: 1, Length: 512}, data)
		},
		"payload CRC-32C": func(fc *frameConn) error {
			h := wire.Header{Kind: wire.KindWrite, Epoch: 1, Seq: 1, Length: 512, Payload: 512, CRC: 1}
			b := make([]byte, wire.HeaderSize)
			h.Encode(b)
			_, err := fc.out.Write(append(b, data...))
			return err
		},
		"amid the parts of seq 1": func(fc *frameConn) error {
			fc.write(wire.Header{Kind: wire.KindWrite, Flags: wire.More, Seq: 1, Offset: testSize - 512, Length: 512}, make([]byte, 512))
			return fc.write(wire.Header{Kind: wire.KindWrite, Seq: 2, Length: 512}, data)
		},
		"does not send ack frames": func(fc *frameConn) error {
			return fc.write(wire.Header{Kind: wire.KindAck, Seq: 1}, nil)
		},
		"magic": func(fc *frameConn) error {
			_, err := fc.out.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10))
			return err
		},
	} {
		st := newStore(t, testSize)
		fc := raw(t, newSite(t, st), 1, wire.ID{1})
		if _, _, err := fc.expect(wire.KindWelcome); err != nil {
			t.Fatal(err)
		}
		if _, _, err := fc.expect(wire.KindRanges); err != nil {
			t.Fatal(err)
		}
		if err := bad(fc); err != nil {
			t.Fatal(err)
		}
		for {
			h, text, err := fc.read()
			if err != nil {
				t.Errorf("%s: %v, want a failed frame", name, err)
			} else if h.Kind == wire.KindAck {
				continue
			} else if h.Kind != wire.KindFailed || !strings.Contains(string(text), name) {
				t.Errorf("%s: %v frame %q", name, h.Kind, text)
			}
			break
		}
		if !isZero(contents(t, st)) {
			t.Errorf("%s: something was applied", name)
		}
	}
}

func FuzzReplicaFrames(f *testing.F) {
	frame := func(h wire.Header, payload []byte) []byte {
		h.Epoch, h.Payload, h.CRC = 1, uint32(len(payload)), wire.Checksum(payload)
		b := make([]byte, wire.HeaderSize)
		h.Encode(b)
		return append(b, payload...)
	}
	f.Add(append(frame(wire.Header{Kind: wire.KindWrite, Seq: 1, Length: 3}, []byte("abc")),
		frame(wire.Header{Kind: wire.KindZero, Seq: 2, Length: 1 << 20}, nil)...))
	f.Add(frame(wire.Header{Kind: wire.KindSum, Length: 4096}, nil))
	f.Add(frame(wire.Header{Kind: wire.KindSum, Flags: wire.Zero, Length: testSize}, nil))
	f.Add(frame(wire.Header{Kind: wire.KindCopy, Flags: wire.Zero, Length: 4096}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours := deafSocket(t)
		defer ours.Close()
		s := admitted(t, ours, memStore(t))
		used, need, err := s.frames(b)
		if err == nil && (used > len(b) || used+need <= len(b)) {
			t.Errorf("%d bytes: used %d, needs %d", len(b), used, need)
		}
	})
}

// memStore is a store in memory.
func memStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Path: "/store", Size: testSize, FS: memfs.New(1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// admitted is a session over conn whose primary was admitted under epoch 1.
func admitted(t testing.TB, conn net.Conn, st Store) *session {
	t.Helper()
	s, err := newSession(NewReplica(ReplicaConfig{Store: st}), conn, 1)
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{Size: uint64(st.Size()), Session: wire.ID{1}, ID: wire.ID{7}}
	if _, err := s.replica.follower.Admit(&hello, 1, now()); err != nil {
		t.Fatal(err)
	}
	s.applier.connection = s.replica.follower.connection
	return s
}

// deafSocket returns a socket whose other end is closed: sends fail, as they may.
func deafSocket(t testing.TB) net.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "deaf")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
