package sweep

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"lockstep/wanem"
)

// fakeDevice is a volume in memory whose writes take the link's round trip
// and a little more, as a mirror's do.
type fakeDevice struct {
	mu     sync.Mutex
	data   []byte
	closed chan struct{}
	close  sync.Once

	delay   func() time.Duration // of one write
	corrupt int64                // the write to this offset goes wrong; -1: none
	fail    error                // of every write
}

func newFakeDevice(size int, delay func() time.Duration) *fakeDevice {
	return &fakeDevice{data: make([]byte, size), closed: make(chan struct{}), delay: delay, corrupt: -1}
}

func (d *fakeDevice) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.data[off:]), nil
}

func (d *fakeDevice) WriteAt(p []byte, off int64) (int, error) {
	if d.fail != nil {
		return 0, d.fail
	}
	if delay := d.delay(); delay > 0 {
		select {
		case <-time.After(delay):
		case <-d.closed:
			return 0, errors.New("device closed")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(d.data[off:], p)
	if d.corrupt >= off && d.corrupt < off+int64(len(p)) {
		d.data[d.corrupt] ^= 1
	}
	return n, nil
}

func (d *fakeDevice) Size() int64 { return int64(len(d.data)) }
func (d *fakeDevice) Close() error {
	d.close.Do(func() { close(d.closed) })
	return nil
}

// fakeTarget is a target whose link is exact unless it is told otherwise.
type fakeTarget struct {
	name     string
	oneCopy  bool // and no wire
	trips    int  // of a write
	size     int
	overhead time.Duration
	link     wanem.Link
	links    []wanem.Distance // as they were set; the first is the bare link

	rttError  func(wanem.Link) time.Duration // added to what is measured
	drops     uint64
	corrupt   int64
	differ    bool
	lost      string       // a copy was, in every trial
	setLink   func() error // called by SetLink
	jitter    *rand.Rand
	different string // a parameter
}

func newFakeTarget() *fakeTarget {
	return &fakeTarget{name: "fake", trips: 1, size: 4 << 20, overhead: 100 * time.Microsecond, corrupt: -1, jitter: rand.New(rand.NewPCG(1, 2))}
}

func (s *fakeTarget) SetLink(_ context.Context, link wanem.Link) error {
	s.link = link
	s.links = append(s.links, link.Distance)
	if s.setLink != nil {
		return s.setLink()
	}
	return nil
}

func (s *fakeTarget) MeasureRTT(context.Context, int) (RTT, error) {
	rtt := s.link.RTT()
	if s.rttError != nil {
		rtt += s.rttError(s.link)
	}
	return RTT{Median: rtt, P99: rtt, Min: rtt}, nil
}

func (s *fakeTarget) Drops() (uint64, error) { return s.drops, nil }

func (s *fakeTarget) Open(context.Context) (Device, error) {
	rtt, overhead := time.Duration(s.trips)*s.link.RTT(), s.overhead
	d := newFakeDevice(s.size, func() time.Duration {
		// Exponential noise: a median and a tail, as real ones have.
		return rtt + overhead + time.Duration(s.jitter.ExpFloat64()*float64(20*time.Microsecond))
	})
	d.corrupt = s.corrupt
	return d, nil
}

func (s *fakeTarget) Name() string { return s.name }
func (s *fakeTarget) Wire() Wire {
	if s.oneCopy {
		return nil
	}
	return s
}
func (s *fakeTarget) Source() Source { return Source{URI: "nbd+unix:///?socket=/nowhere"} }

func (s *fakeTarget) Compare(context.Context) (int64, error) {
	if s.oneCopy {
		return 0, nil
	}
	if s.lost != "" {
		return int64(s.size), &DegradedError{s.lost}
	}
	if s.differ {
		return 0, &DifferenceError{4711}
	}
	return int64(s.size), nil
}

func (s *fakeTarget) Facts() TargetFacts {
	return TargetFacts{
		Version: "test", OneCopy: s.oneCopy,
		Settings:   []Setting{{"al-extents", "6007", "its guide advises it"}},
		Parameters: map[string]string{"size": "4MiB", "ack": s.different},
	}
}

func testFacts() Facts {
	return Facts{
		Backend: "fake", BackendWhy: "a test", Congestion: "none",
		Sysctls: map[string]string{"net.ipv4.tcp_slow_start_after_idle": "0"},
	}
}

// testConfig is enough where only medians matter.
func testConfig(out string) Config {
	return Config{
		Km: []float64{0, 100, 500, 50}, Workload: Builtin, BlockSize: 4096, QueueDepth: 1,
		WarmUp: 20 * time.Millisecond, Duration: 100 * time.Millisecond, Repeats: 3, Idle: 3 * time.Second,
		Budgets: []time.Duration{time.Millisecond, 2 * time.Millisecond, 10 * time.Millisecond},
		Seed:    42, Out: out,
	}
}

// tailConfig gives every trial the writes for a p99.
func tailConfig(out string) Config {
	c := testConfig(out)
	c.Duration = 700 * time.Millisecond
	return c
}
