package nbd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// serve serves cfg on a fresh unix socket until the test ends, and returns the
// socket's path.
func serve(t testing.TB, cfg Config) string {
	_, path := start(t, cfg)
	return path
}

// start is serve for tests that look into the server.
func start(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
			return // it would be waited for in vain
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, path
}

// disk is an export of size bytes of memory.
func disk(size uint64) Export {
	return Export{Name: "disk", Description: "a test disk", Size: size, FastZero: true, Backend: newMemory()}
}

func dialUnix(t testing.TB, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
