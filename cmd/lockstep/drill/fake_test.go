package drill

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errHungUp = errors.New("hung up")

// fake is a volume in memory that can break its promises. Its time is the bubble's.
type fake struct {
	mu     sync.Mutex
	data   []byte
	old    []byte          // what the volume was when the fault began
	down   map[string]bool // sites whose requests wait
	lifted chan struct{}   // closed when no site is down any more

	latency time.Duration // of a request
	outage  time.Duration // of everything, at a fault
	resets  bool          // connections break at a fault
	stale   bool          // site b reads what was, during a fault
	forgets bool          // what was acknowledged during the first half of a fault is lost
	damages bool          // a bit is wrong in what a read of many blocks returns
	differs int64
	stuck   bool // it never settles

	kinds []Kind
	open  map[*fakeDevice]bool
}

func newFake() *fake {
	return &fake{data: make([]byte, 512*BlockSize), latency: time.Millisecond, open: map[*fakeDevice]bool{}}
}

func (f *fake) Sites() []string { return []string{"a", "b"} }

func (f *fake) Dial(_ context.Context, site string) (Device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := &fakeDevice{f: f, site: site, hungUp: make(chan struct{})}
	f.open[d] = true
	return d, nil
}

func (f *fake) Break(_ context.Context, kind Kind) (func(context.Context) error, error) {
	f.mu.Lock()
	f.kinds = append(f.kinds, kind)
	f.old = append([]byte(nil), f.data...)
	f.lifted, f.down = make(chan struct{}), map[string]bool{"a": true, "b": f.outage > 0}
	resets := f.resets
	f.mu.Unlock()
	if resets {
		f.hangUp()
	}
	time.Sleep(f.outage)
	f.mu.Lock()
	f.down["b"] = false
	close(f.lifted)
	f.lifted = make(chan struct{})
	f.mu.Unlock()
	return f.mend, nil
}

func (f *fake) mend(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgets {
		copy(f.data, f.old)
	}
	f.down, f.old = nil, nil
	close(f.lifted)
	return nil
}

func (f *fake) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for d := range f.open {
		d.once.Do(func() { close(d.hungUp) })
	}
	clear(f.open)
}

func (f *fake) Settle(ctx context.Context) error {
	if f.stuck {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return wait(ctx, 50*time.Millisecond)
}

func (f *fake) Compare(context.Context) (int64, error) { return f.differs, nil }

type fakeDevice struct {
	f      *fake
	site   string
	once   sync.Once
	hungUp chan struct{}
}

// pass takes a request's time, and waits while the site is down.
func (d *fakeDevice) pass() error {
	for {
		d.f.mu.Lock()
		down, lifted := d.f.down[d.site], d.f.lifted
		d.f.mu.Unlock()
		if !down {
			lifted = make(chan struct{})
			time.AfterFunc(d.f.latency, func() { close(lifted) })
		}
		select {
		case <-d.hungUp:
			return errHungUp
		case <-lifted:
			if !down {
				return nil
			}
		}
	}
}

func (d *fakeDevice) ReadAt(p []byte, off int64) (int, error) {
	if err := d.pass(); err != nil {
		return 0, err
	}
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if d.f.stale && d.f.old != nil && d.site == "b" {
		return copy(p, d.f.old[off:]), nil
	}
	n := copy(p, d.f.data[off:])
	if d.f.damages && off == 0 && n > BlockSize {
		p[40] ^= 1
	}
	return n, nil
}

func (d *fakeDevice) WriteAt(p []byte, off int64) (int, error) {
	if err := d.pass(); err != nil {
		return 0, err
	}
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	return copy(d.f.data[off:], p), nil
}

func (d *fakeDevice) Flush() error { return d.pass() }

func (d *fakeDevice) Close() error {
	d.once.Do(func() { close(d.hungUp) })
	return nil
}
