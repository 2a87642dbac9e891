package powercut

import (
	"io/fs"

	"lockstep/mirror/store/vfs"
)

// Unsynced is a file system whose syncs do nothing and say that they did: what the check
// must find wrong.
func Unsynced(f vfs.FS) vfs.FS { return unsyncedFS{f} }

type unsyncedFS struct{ vfs.FS }

func (unsyncedFS) SyncDir(string) error { return nil }

func (u unsyncedFS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error { return nil }
