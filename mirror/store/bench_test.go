package store

import (
	"path/filepath"
	"sync/atomic"
	"testing"
)

func openToBench(b *testing.B) *Store {
	b.Helper()
	s, err := Open(Options{Path: filepath.Join(b.TempDir(), "store"), Size: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if err := s.Prepare(0, s.Size()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	return s
}

func BenchmarkReady(b *testing.B) {
	s := openToBench(b)
	for b.Loop() {
		if !s.Ready(4096, 4096) {
			b.Fatal("not ready")
		}
	}
}

// BenchmarkIntents is what the intents add to a write of a ready region.
func BenchmarkIntents(b *testing.B) {
	s := openToBench(b)
	for b.Loop() {
		if err := s.Prepare(4096, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteReady4K(b *testing.B) {
	s := openToBench(b)
	p := make([]byte, 4096)
	b.SetBytes(4096)
	for off := int64(0); b.Loop(); off = (off + 4096) % s.Size() {
		if err := s.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteReady4KParallel(b *testing.B) {
	s := openToBench(b)
	b.SetBytes(4096)
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, 4096)
		for pb.Next() {
			if err := s.WriteAt(p, next.Add(1)*4096%s.Size()); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkReadCached4K(b *testing.B) {
	s := openToBench(b)
	p := make([]byte, 4096)
	if err := s.WriteAt(p, 0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4096)
	for b.Loop() {
		if err := s.ReadCached(p, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// A write to a region that is ready allocates nothing.
func TestReadyWriteAllocatesNothing(t *testing.T) {
	s := open(t)
	p := make([]byte, 4096)
	must(t, s.WriteAt(p, 0))
	if n := testing.AllocsPerRun(100, func() {
		if !s.Ready(0, 4096) || s.WriteAt(p, 0) != nil {
			t.Error("cannot write")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
