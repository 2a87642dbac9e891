package memfs

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// Crash loses power and comes back. keep, from 0 to 1, is how likely each thing
// that was not durable is there afterwards. Files that were open are not any more.
func (f *FS) Crash(keep float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, dir := range slices.Sorted(maps.Keys(f.steps)) {
		for _, s := range f.steps[dir] {
			if f.rand.Float64() < keep {
				for _, e := range s {
					setName(f.durable, e)
				}
			}
		}
	}
	clear(f.steps)
	for _, name := range slices.Sorted(maps.Keys(f.durable)) { // parents come first
		if _, there := f.durable[filepath.Dir(name)]; !there {
			delete(f.durable, name)
		} else if node := f.durable[name]; !node.dir {
			f.losePower(node, keep)
		}
	}
	f.names = maps.Clone(f.durable)
	f.restart()
}

func (f *FS) losePower(node *inode, keep float64) {
	for _, sector := range slices.Sorted(maps.Keys(node.unsynced)) {
		u := node.unsynced[sector]
		if !u.lost && f.rand.Float64() < keep {
			continue
		}
		from := 0
		if f.TearSectors && !u.lost {
			from = f.rand.IntN(sectorSize)
		}
		node.restore(sector, from, u.disk)
	}
	clear(node.unsynced)
	if f.rand.Float64() >= keep {
		node.size = node.durableSize
	}
	node.durableSize = node.size
	node.cut()
}

// Kill ends the processes that use the file system, but not the machine: their
// files are closed and their locks free.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restart()
}

func (f *FS) restart() {
	f.life++
	f.down, f.crashAt = false, 0
}

// Ops is how many operations changed something, or would have, since New.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// CrashAt makes the n-th changing operation from now the last one, 1 being the
// next; 0 is never.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = 0
	if n > 0 {
		f.crashAt = f.ops + n
	}
}

// FailWrite makes the n-th write from now fail with EIO and write nothing, 1 being
// the next; 0 is never.
func (f *FS) FailWrite(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failWrite = n
}

// FailSync makes the n-th sync of a file from now fail with EIO, 1 being the
// next; 0 is never.
func (f *FS) FailSync(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failSync = n
}

// Full leaves room for so many bytes more, rounded down to pages; what does not fit
// fails with ENOSPC. Negative is no limit.
func (f *FS) Full(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = max(bytes, -1)
	if bytes > 0 {
		f.room = bytes / pageSize
	}
}

// FlipBit turns the lowest bit of a byte over, on the disk and in memory, as a
// disk does that does not keep what it was given. The byte must be there.
func (f *FS) FlipBit(name string, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.names[filepath.Clean(name)]
	if node == nil || node.dir || off < 0 || off >= node.size {
		return fmt.Errorf("flip a bit of %s at %d: %w", name, off, fs.ErrNotExist)
	}
	node.page(off / pageSize)[off%pageSize] ^= 1
	if u, dirty := node.unsynced[off/sectorSize]; dirty && u.disk != nil {
		u.disk[off%sectorSize] ^= 1
	}
	return nil
}

// loseSync is a sync that fails: each sector is written or, for good, not.
func (f *FS) loseSync(node *inode) {
	for _, sector := range slices.Sorted(maps.Keys(node.unsynced)) {
		u := node.unsynced[sector]
		if !u.lost && f.rand.IntN(2) == 0 {
			delete(node.unsynced, sector)
			continue
		}
		u.lost = true
		node.unsynced[sector] = u
	}
}
