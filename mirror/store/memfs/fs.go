package memfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"lockstep/mirror/store/vfs"
)

// ErrCrashed is returned from the operation at which CrashAt stops on, and by
// every operation on a file that was opened before a Crash or Kill.
var ErrCrashed = errors.New("the simulated machine is down")

var _ vfs.FS = (*FS)(nil)

// FS is the file system. Its methods, and those of its files, may be called
// concurrently; its fields are set before it is used.
type FS struct {
	// Stall is called before each operation with its name and that of the file:
	// "open", "read", "write", "sync", "truncate", "zero", "data", "size", "lock",
	// "mkdir", "rename", "remove" or "syncdir". It may call the FS.
	Stall func(op, name string)
	// Fail makes an operation fail with what it returns, unless that is nil. It
	// must not call the FS.
	Fail func(op, name string) error
	// TearSectors lets Crash tear within a sector.
	TearSectors bool

	mu      sync.Mutex
	rand    *rand.Rand
	life    int // ends the handles of earlier ones
	down    bool
	ops     int
	crashAt int // in ops, 0 for never

	failWrite, failSync int   // counted down to the one that fails
	room                int64 // pages that may still be taken, -1 for any number

	names   map[string]*inode // as they are
	durable map[string]*inode // as they are after a power loss, but for steps
	steps   map[string][]step // by directory, since its SyncDir
}

// step is one change of a directory, which happens as a whole.
type step []entry

// entry gives a name to a file, or to nothing.
type entry struct {
	name string
	node *inode
}

// New returns an empty file system that has the directories "/" and ".". What
// Crash leaves follows from seed.
func New(seed uint64) *FS {
	f := &FS{
		rand: rand.New(rand.NewPCG(seed, 0x6c6f636b73746570)), room: -1,
		names: make(map[string]*inode), durable: make(map[string]*inode), steps: make(map[string][]step),
	}
	for _, root := range []string{"/", "."} {
		dir := &inode{dir: true}
		f.names[root], f.durable[root] = dir, dir
	}
	return f
}

// begin lets an operation go ahead, with mu locked, or not, with mu unlocked.
func (f *FS) begin(op, name string) error {
	if f.Stall != nil {
		f.Stall(op, name)
	}
	f.mu.Lock()
	err := f.admit(op, name)
	if err != nil {
		f.mu.Unlock()
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (f *FS) admit(op, name string) error {
	if f.down {
		return ErrCrashed
	}
	if f.Fail != nil {
		if err := f.Fail(op, name); err != nil {
			return err
		}
	}
	return nil
}

// changing counts an operation that changes something. A sync that is the last one
// does not take place; of any other, Crash decides.
func (f *FS) changing(sync bool) error {
	f.ops++
	if f.ops == f.crashAt {
		f.down = true
		if sync {
			return ErrCrashed
		}
	}
	return nil
}

// end ends an operation that began.
func (f *FS) end(op, name string, err *error) {
	if f.down {
		*err = ErrCrashed
	}
	var path *fs.PathError
	if *err != nil && !errors.As(*err, &path) {
		*err = &fs.PathError{Op: op, Path: name, Err: *err}
	}
	f.mu.Unlock()
}

// change makes a step in a directory.
func (f *FS) change(dir string, s step) {
	for _, e := range s {
		setName(f.names, e)
	}
	f.steps[dir] = append(f.steps[dir], s)
}

func setName(names map[string]*inode, e entry) {
	if e.node == nil {
		delete(names, e.name)
		return
	}
	names[e.name] = e.node
}

// OpenFile opens or creates a file; its directory must be there.
func (f *FS) OpenFile(name string, flag int, _ fs.FileMode) (_ vfs.File, err error) {
	name = filepath.Clean(name)
	if err := f.begin("open", name); err != nil {
		return nil, err
	}
	defer f.end("open", name, &err)
	node, err := f.lookUp(name, flag)
	if err != nil {
		return nil, err
	}
	if flag&os.O_TRUNC != 0 && node.size > 0 {
		f.changing(false)
		f.setSize(node, 0)
	}
	return &file{fs: f, node: node, name: name, life: f.life}, nil
}

func (f *FS) lookUp(name string, flag int) (*inode, error) {
	node := f.names[name]
	switch {
	case node != nil && node.dir:
		return nil, syscall.EISDIR
	case node != nil && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case node != nil:
		return node, nil
	case flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	}
	dir := filepath.Dir(name)
	if parent := f.names[dir]; parent == nil || !parent.dir {
		return nil, fs.ErrNotExist
	}
	f.changing(false)
	node = newInode()
	f.change(dir, step{{name, node}})
	return node, nil
}

// MkdirAll makes a directory and those it is in.
func (f *FS) MkdirAll(dir string, _ fs.FileMode) (err error) {
	dir = filepath.Clean(dir)
	if err := f.begin("mkdir", dir); err != nil {
		return err
	}
	defer f.end("mkdir", dir, &err)
	return f.mkdir(dir)
}

func (f *FS) mkdir(dir string) error {
	if node := f.names[dir]; node != nil {
		if !node.dir {
			return syscall.ENOTDIR
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if err := f.mkdir(parent); err != nil {
		return err
	}
	f.changing(false)
	f.change(parent, step{{dir, &inode{dir: true}}})
	return nil
}

// Rename gives a file another name in its directory.
func (f *FS) Rename(from, to string) (err error) {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := f.begin("rename", from); err != nil {
		return err
	}
	defer f.end("rename", from, &err)
	node, dir := f.names[from], filepath.Dir(from)
	switch {
	case node == nil:
		return fs.ErrNotExist
	case node.dir || dir != filepath.Dir(to):
		return syscall.EINVAL
	}
	f.changing(false)
	f.giveBack(f.names[to])
	f.change(dir, step{{from, nil}, {to, node}})
	return nil
}

// Remove removes a file.
func (f *FS) Remove(name string) (err error) {
	name = filepath.Clean(name)
	if err := f.begin("remove", name); err != nil {
		return err
	}
	defer f.end("remove", name, &err)
	node := f.names[name]
	switch {
	case node == nil:
		return fs.ErrNotExist
	case node.dir:
		return syscall.EISDIR
	}
	f.changing(false)
	f.giveBack(node)
	f.change(filepath.Dir(name), step{{name, nil}})
	return nil
}

// SyncDir makes the steps made in a directory durable.
func (f *FS) SyncDir(dir string) (err error) {
	dir = filepath.Clean(dir)
	if err := f.begin("syncdir", dir); err != nil {
		return err
	}
	defer f.end("syncdir", dir, &err)
	if node := f.names[dir]; node == nil || !node.dir {
		return fs.ErrNotExist
	}
	if err := f.changing(true); err != nil {
		return err
	}
	for _, s := range f.steps[dir] {
		for _, e := range s {
			setName(f.durable, e)
		}
	}
	delete(f.steps, dir)
	return nil
}
