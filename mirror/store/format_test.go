package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"lockstep/mirror/dirty"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the files in testdata")

// golden compares bytes with a dump in testdata, which doc.go's tables explain.
func golden(t *testing.T, name string, p []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	dump := hex.Dump(p)
	if *rewrite {
		must(t, os.WriteFile(path, []byte(dump), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if dump != string(want) {
		t.Errorf("%s is now\n%swant\n%s", name, dump, want)
	}
}

func ascending(from byte) (id [16]byte) {
	for i := range id {
		id[i] = from + byte(i)
	}
	return id
}

func goldenMeta() Meta {
	return Meta{
		Volume: ascending(0x10), Replica: ascending(0x20), Boot: ascending(0x30),
		Size: 1 << 40, Region: 4 << 20, Block: 4 << 10, Epoch: 0x0102030405060708, Incarnation: 9,
		Complete: true, Why: "because", blank: true,
	}
}

func TestGoldenMeta(t *testing.T) {
	golden(t, "meta", encodeRecord(goldenMeta().encode()))
}

func TestGoldenBitmapPages(t *testing.T) {
	m := dirty.New(1<<30, 4096)
	m.Add(0, 1)
	m.Add(9*4096, 4096)
	m.Add((dirty.PageBits-1)*4096, 4096)
	b := bitmapFile{kind: outOfSyncKind, peer: ascending(0x40)}
	golden(t, "bitmap-header", b.header(m))
	s, left := b.encode(m, []int{0})
	if len(left) != 0 || s.off != pageSize {
		t.Errorf("the page is for offset %d, %v are left", s.off, left)
	}
	golden(t, "bitmap-page", s.bytes)
}

// Each flag is a bit of its own, and everything is found again.
func TestMetaFlags(t *testing.T) {
	for bits := range 32 {
		m := goldenMeta()
		m.Complete, m.Clean, m.blank, m.Lossy, m.growing = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0, bits&16 != 0
		p := m.encode()
		if p[4] != byte(bits) {
			t.Errorf("flags %05b are encoded as %05b", bits, p[4])
		}
		if got, err := decodeMeta(p); err != nil || got != m {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
}

func TestDecodeMetaRefuses(t *testing.T) {
	good := goldenMeta().encode()
	for name, change := range map[string]func(p []byte) []byte{
		"short":          func(p []byte) []byte { return p[:metaFixed-1] },
		"magic":          func(p []byte) []byte { p[0]++; return p },
		"flag":           func(p []byte) []byte { p[4] |= 0x80; return p },
		"why too short":  func(p []byte) []byte { return p[:len(p)-1] },
		"why too long":   func(p []byte) []byte { p[7]++; return p },
		"size 0":         func(p []byte) []byte { clear(p[56:64]); return p },
		"size, negative": func(p []byte) []byte { p[56] = 0x80; return p },
		"region 3":       func(p []byte) []byte { p[67] = 3; return p },
	} {
		if _, err := decodeMeta(change(bytes.Clone(good))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(goldenMeta().encode())
	f.Add(make([]byte, metaFixed))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := decodeMeta(p)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is not ErrCorrupt", err)
			}
			return
		}
		if again, err := decodeMeta(m.encode()); err != nil || again != m {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(encodeRecord([]byte("data")))
	f.Add(encodeRecord(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		data, err := decodeRecord(raw)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is not ErrCorrupt", err)
			}
			return
		}
		if !bytes.Equal(encodeRecord(data), raw) {
			t.Errorf("%x is decoded, but is not how %x is encoded", raw, data)
		}
	})
}

// A page is what was encoded, or counts as set.
func FuzzBitmapPage(f *testing.F) {
	b := bitmapFile{kind: intentKind}
	const blocks = 100
	m := dirty.New(blocks*512, 512)
	m.Add(512, 1024)
	s, _ := b.encode(m, []int{0})
	f.Add(s.bytes)
	f.Add(make([]byte, pageSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) != pageSize {
			return
		}
		got := dirty.New(blocks*512, 512)
		err := b.loadPage(p, 1, got)
		switch {
		case err != nil && (!errors.Is(err, ErrCorrupt) || got.Bytes() != got.Size()):
			t.Errorf("a corrupt page: %v, %d bytes in the set", err, got.Bytes())
		case err == nil && !got.Empty():
			s, _ := b.encode(got, []int{0})
			if !bytes.Equal(s.bytes[:pageHead], p[:pageHead]) {
				t.Errorf("%x was taken for a page", p[:pageHead])
			}
		}
	})
}
