package export

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/mirror"
	"lockstep/nbd"
)

// fake is a volume in memory that gives ops back as it is told.
type fake struct {
	mu       sync.Mutex
	data     []byte
	kinds    []mirror.OpKind
	err      error
	copies   bool // give ops back as copies, as a volume does whose disk hangs
	complete func([]*mirror.Op)
}

func (f *fake) Submit(ops []*mirror.Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := make([]*mirror.Op, len(ops))
	for i, op := range ops {
		f.kinds = append(f.kinds, op.Kind)
		to := f.data[min(op.Off, int64(len(f.data))):min(op.Off+op.Len, int64(len(f.data)))]
		done[i] = op
		if f.copies {
			done[i] = &mirror.Op{Kind: op.Kind, Tag: op.Tag, Data: make([]byte, len(op.Data))}
			copy(done[i].Data, op.Data)
		}
		switch op.Kind {
		case mirror.Read:
			copy(done[i].Data, to)
		case mirror.Write:
			copy(to, op.Data)
		case mirror.Zero:
			clear(to)
		}
		done[i].Err = f.err
	}
	f.complete(done)
}

const size = 1 << 20

// serve exports f to a client.
func serve(t *testing.T, f *fake, e *Export) *nbd.Client {
	t.Helper()
	f.data, f.complete = make([]byte, size), e.Complete
	e.Volume = f
	server, err := nbd.NewServer(nbd.Config{Exports: []nbd.Export{{Name: "x", Size: size, Backend: e}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(context.Background(), l) })
	c, err := nbd.Dial(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		server.Shutdown(context.Background())
		serving.Wait()
	})
	return c
}

func everything(int64) (start, end int64, ok bool, err error) { return 0, 0, false, nil }

func TestRequestsBecomeOps(t *testing.T) {
	var mu sync.Mutex
	observed := map[mirror.OpKind]int{}
	f, e := new(fake), &Export{Data: everything, Observe: func(kind mirror.OpKind, err error, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		observed[kind]++
		if took < 0 || took > time.Minute {
			t.Errorf("%v took %v", kind, took)
		}
	}}
	c := serve(t, f, e)
	if _, err := c.WriteAt([]byte{1, 2, 3}, 10); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := c.ReadAt(got, 10); err != nil || got[2] != 3 {
		t.Fatal(got, err)
	}
	for _, err := range []error{c.Trim(0, 11, 0), c.WriteZeroes(11, 1, nbd.FlagNoHole), c.Flush(), c.Cache(0, 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	want := []mirror.OpKind{mirror.Write, mirror.Read, mirror.Zero, mirror.Zero, mirror.Flush}
	if !reflect.DeepEqual(f.kinds, want) || f.data[10] != 0 || f.data[11] != 0 || f.data[12] != 3 {
		t.Errorf("%v, holds %v", f.kinds, f.data[10:13])
	}
	mu.Lock()
	defer mu.Unlock()
	if observed[mirror.Write] != 1 || observed[mirror.Zero] != 2 || observed[mirror.Read] != 1 || observed[mirror.Flush] != 1 {
		t.Errorf("observed %v", observed)
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	f := &fake{err: syscall.ENOSPC}
	c := serve(t, f, &Export{Data: everything})
	if _, err := c.WriteAt([]byte{1}, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want the volume's error", err)
	}
}

// What a disk that hangs still has must not be what the next request uses.
func TestOpsThatComeBackAsCopies(t *testing.T) {
	f := &fake{copies: true}
	c := serve(t, f, &Export{Data: everything})
	for i := range byte(50) {
		if _, err := c.WriteAt([]byte{i, i + 1}, int64(i)*8); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if _, err := c.ReadAt(got, int64(i)*8); err != nil || got[0] != i || got[1] != i+1 {
			t.Fatalf("read %v, %v: want what the copy holds", got, err)
		}
	}
}

func TestBlockStatus(t *testing.T) {
	// Data at 4096 to 8192 and from 65536 on.
	data := func(off int64) (start, end int64, ok bool, err error) {
		switch {
		case off < 8192:
			return max(off, 4096), 8192, true, nil
		default:
			return max(off, 65536), size, true, nil
		}
	}
	hole := func(n uint64) nbd.Extent { return nbd.Extent{Length: n, Hole: true, Zero: true} }
	full := func(n uint64) nbd.Extent { return nbd.Extent{Length: n} }
	for _, tc := range []struct {
		name   string
		data   func(int64) (int64, int64, bool, error)
		off    uint64
		length uint32
		flags  nbd.CommandFlags
		want   []nbd.Extent
	}{
		{"all", data, 0, size, 0, []nbd.Extent{hole(4096), full(4096), hole(57344), full(size - 65536)}},
		{"within data", data, 5000, 100, 0, []nbd.Extent{full(100)}},
		{"within a hole", data, 10000, 100, 0, []nbd.Extent{hole(100)}},
		{"one", data, 0, size, nbd.FlagReqOne, []nbd.Extent{hole(4096)}},
		{"not known here", everything, 100, 1000, 0, []nbd.Extent{full(1000)}},
	} {
		c := serve(t, new(fake), &Export{Data: tc.data})
		got, err := c.BlockStatus(tc.off, tc.length, tc.flags)
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v (%v), want %v", tc.name, got, err, tc.want)
		}
	}
	failing := func(int64) (int64, int64, bool, error) { return 0, 0, false, syscall.EIO }
	if _, err := serve(t, new(fake), &Export{Data: failing}).BlockStatus(0, 512, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want the store's error", err)
	}
}
