package forward

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"lockstep/mirror"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testBlock = 512
	testSize  = 1 << 30
)

// fakeDisk is what all nodes agree on: the bytes (the first 8 of each block), and
// which ops were applied.
type fakeDisk struct {
	mu      sync.Mutex
	blocks  map[int64]uint64
	applied map[[2]uint64]int
	faults  []string
}

func newFakeDisk() *fakeDisk {
	return &fakeDisk{blocks: map[int64]uint64{}, applied: map[[2]uint64]int{}}
}

func (d *fakeDisk) fault(format string, args ...any) {
	d.faults = append(d.faults, fmt.Sprintf(format, args...))
}

// check fails the test for every rule that was broken.
func (d *fakeDisk) check(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		t.Error(f)
	}
	for id, n := range d.applied {
		if n != 1 {
			t.Errorf("op %d of session %x was applied %d times", id[1], id[0], n)
		}
	}
}

// do applies an op as a primary does: a write that is sent again only if it was not
// applied before.
func (d *fakeDisk) do(op *mirror.Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if op.Kind == mirror.Read {
		binary.BigEndian.PutUint64(op.Data, d.blocks[op.Off])
		return
	}
	if op.Kind == mirror.Flush {
		return
	}
	if op.Origin == nil {
		d.fault("a %v without an origin", op.Kind)
		return
	}
	id := [2]uint64{op.Origin.Session, op.Origin.Number}
	if d.applied[id] > 0 {
		if !op.Origin.Retry {
			d.fault("op %d was sent again as if it were new", op.Origin.Number)
		}
		return
	}
	d.applied[id]++
	var v uint64
	if op.Kind == mirror.Write {
		v = binary.BigEndian.Uint64(op.Data)
	}
	d.blocks[op.Off] = v
}

// fakeVolume is a primary's volume. Its worker does ops in order, in batches.
type fakeVolume struct {
	disk *fakeDisk
	kick chan struct{}
	over sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand
	queue  []*mirror.Op
	closed bool
}

func newFakeVolume(d *fakeDisk, seed uint64) *fakeVolume {
	v := &fakeVolume{disk: d, kick: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(seed, 0))}
	v.over.Go(v.work)
	return v
}

func (v *fakeVolume) Submit(ops []*mirror.Op) {
	v.mu.Lock()
	closed := v.closed
	if !closed {
		v.queue = append(v.queue, ops...)
		select {
		case v.kick <- struct{}{}:
		default:
		}
	}
	v.mu.Unlock()
	if closed {
		for _, op := range ops {
			op.Err = fmt.Errorf("submit: %w", mirror.ErrDeposed)
		}
		Dispatch(ops)
	}
}

func (v *fakeVolume) work() {
	for range v.kick {
		for {
			v.mu.Lock()
			n := len(v.queue)
			if n == 0 {
				v.mu.Unlock()
				break
			}
			batch := v.queue[:1+v.rng.IntN(n)]
			v.queue = append([]*mirror.Op(nil), v.queue[len(batch):]...)
			v.mu.Unlock()
			for _, op := range batch {
				v.disk.do(op)
			}
			Dispatch(batch)
		}
	}
}

// close deposes the volume: what it has comes back, done or not.
func (v *fakeVolume) close() {
	v.mu.Lock()
	left := v.queue
	v.queue, v.closed = nil, true
	v.mu.Unlock()
	close(v.kick)
	v.over.Wait()
	for _, op := range left {
		if v.rng.IntN(2) == 0 {
			v.disk.do(op)
		}
		op.Err = fmt.Errorf("stopped: %w", mirror.ErrDeposed)
	}
	Dispatch(left)
}

// call is an op that a test waits for.
type call struct {
	op   mirror.Op
	done chan struct{}
	n    int // times it was given back
	gone bool
}

// caller submits ops to a Front and waits for each.
type caller struct{ front *Front }

func newCaller(conf FrontConfig) *caller {
	conf.Volume, conf.Size = "v", testSize
	conf.Complete = func(ops []*mirror.Op) {
		for _, op := range ops {
			c := op.Tag.(*call) //nolint:errcheck // the caller set it
			c.n++
			close(c.done)
		}
	}
	return &caller{front: NewFront(conf)}
}

func (c *caller) start(kind mirror.OpKind, block int64, v uint64) *call {
	k := &call{done: make(chan struct{})}
	k.op = mirror.Op{Kind: kind, Off: block * testBlock, Len: testBlock, Tag: k}
	switch kind {
	case mirror.Read, mirror.Write:
		k.op.Data = make([]byte, testBlock)
		binary.BigEndian.PutUint64(k.op.Data, v)
	case mirror.Flush:
		k.op.Off, k.op.Len = 0, 0
	}
	c.front.Submit([]*mirror.Op{&k.op})
	return k
}

func (k *call) wait() error {
	<-k.done
	return k.op.Err
}

func (k *call) value() uint64 { return binary.BigEndian.Uint64(k.op.Data) }
