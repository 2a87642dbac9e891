package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lockstep/mirror/store/vfs"
)

// SectorSize is the smallest unit that a store keeps whole, in bytes.
const SectorSize = 512

// What Options leaves open.
const (
	DefaultRegion = 4 << 20 // bytes; 1 TiB is 262,144 regions, 2 MiB of memory
	DefaultBlock  = 4 << 10 // bytes; what most writes are multiples of
)

// maxRegions bounds the memory that regions take, at 8 bytes each, to 32 MiB.
const maxRegions = 4 << 20

// Options say what store to open and how.
type Options struct {
	// Path is the data: a regular file, which is created if there is none,
	// or a block device.
	Path string
	// Size is the volume's in bytes, a multiple of SectorSize. What exists must
	// have exactly that size: a store is never cut, nor grown unless Grow says so.
	Size int64
	// Grow lets a store that is smaller become as large as Size. What it gains reads
	// as zeroes, which a device, that has to have the size already, is given. A growth
	// that was cut off ends with the next Open, at the size that one asks for.
	Grow bool
	// Meta is the directory of everything that is not data. A file's is
	// Path.lockstep unless told otherwise; a block device needs to be told, on
	// a file system that outlives a restart.
	Meta string
	// Direct bypasses the page cache (O_DIRECT): reads and writes are multiples
	// of Store.Align then, and no faster from memory than from the disk.
	Direct bool
	// Region is the granularity of the write-intent bitmap, Block that of
	// out-of-sync bitmaps, in bytes and powers of two. Larger regions are
	// committed less often and compared longer after a crash. A new store
	// takes DefaultRegion and DefaultBlock for 0, another what it was made with.
	Region, Block int64
	// FS is where all of that is; vfs.OS if nil.
	FS vfs.FS
	// BootID tells one start of the machine from the next, so that a power loss
	// is told from a crash; the kernel's if nil.
	BootID func() ([16]byte, error)
	// NewID gives a new store its replica ID; random if nil.
	NewID func() [16]byte
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.BootID == nil {
		o.BootID = kernelBootID
	}
	if o.NewID == nil {
		o.NewID = randomID
	}
	return o
}

// geometry is what was asked for, with what a new store takes for 0.
func (o Options) geometry() Meta {
	m := Meta{Size: o.Size, Region: o.Region, Block: o.Block}
	if m.Region == 0 {
		m.Region = DefaultRegion
	}
	if m.Block == 0 {
		m.Block = DefaultBlock
	}
	return m
}

func (o Options) validate() error {
	m := o.geometry()
	switch {
	case o.Size <= 0 || o.Size%SectorSize != 0:
		return fmt.Errorf("size %d is not a positive multiple of %d bytes", o.Size, SectorSize)
	case !isGranularity(m.Block):
		return fmt.Errorf("block of %d bytes is not a power of two from %d on", m.Block, SectorSize)
	case !isGranularity(m.Region):
		return fmt.Errorf("region of %d bytes is not a power of two from %d on", m.Region, SectorSize)
	case o.Size/m.Region > maxRegions:
		return fmt.Errorf("%d regions of %d bytes are more than %d: take larger ones", o.Size/m.Region, m.Region, maxRegions)
	}
	return nil
}

func isGranularity(n int64) bool { return n >= SectorSize && n&(n-1) == 0 }

// metaDir is where the metadata is, once it is known whether Path is a device.
func (o Options) metaDir(device bool) (string, error) {
	switch {
	case o.Meta != "":
		return filepath.Clean(o.Meta), nil
	case device:
		return "", fmt.Errorf("%s is a block device: say which directory is to hold its metadata", o.Path)
	}
	return o.Path + ".lockstep", nil
}

func kernelBootID() (id [16]byte, err error) {
	const file = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(file)
	if err != nil {
		return id, fmt.Errorf("boot ID, which tells a power loss from a crash: %w; is /proc mounted here?", err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("boot ID: %s holds %q, not a UUID", file, text)
	}
	return [16]byte(raw), nil
}

func randomID() (id [16]byte) {
	rand.Read(id[:]) // never fails
	return id
}
