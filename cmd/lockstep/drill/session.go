package drill

import (
	"context"
	"io"
	"sync"
	"time"
)

// Device is a volume as one client has it open. Its methods may be called
// concurrently.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Flush() error
	Close() error
}

// session keeps a connection to a site's export: whoever finds it broken drops it,
// and the next caller dials.
type session struct {
	dial func(context.Context) (Device, error)

	mu  sync.Mutex
	dev Device
}

const (
	dialTimeout = 5 * time.Second
	dialPause   = 10 * time.Millisecond
)

// get returns the open device, and dials until there is one or ctx ends.
func (s *session) get(ctx context.Context) (Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.dev == nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		once, cancel := context.WithTimeout(ctx, dialTimeout)
		dev, err := s.dial(once)
		cancel()
		if err == nil {
			s.dev = dev
			break
		}
		if err := wait(ctx, dialPause); err != nil {
			return nil, err
		}
	}
	return s.dev, nil
}

// drop closes a device that failed, unless another caller did.
func (s *session) drop(dev Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dev == dev && dev != nil {
		s.dev.Close() //nolint:errcheck // it failed already
		s.dev = nil
	}
}

// end hangs up; calls in progress return.
func (s *session) end() {
	s.mu.Lock()
	dev := s.dev
	s.mu.Unlock()
	s.drop(dev)
}

// wait returns after d, or when ctx ends with its error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
