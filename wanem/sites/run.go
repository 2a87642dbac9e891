package sites

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runPattern names the scratch directories of runs; ownerFile in each says whose
// it is: "PID START", the start as in field 22 of /proc/PID/stat (proc(5)).
const (
	runPattern = "run-*"
	ownerFile  = "owner"
)

// base is where runs keep their scratch directories, one folder a user. In a user
// namespace everybody is 0, so Enter says who it was outside.
func base() string {
	uid := os.Getenv(entered)
	if uid == "" {
		uid = strconv.Itoa(os.Getuid())
	}
	return filepath.Join(os.TempDir(), "lockstep-"+uid)
}

func makeRun() (string, error) {
	if err := makeBase(); err != nil {
		return "", fmt.Errorf("make the scratch directory: %w", err)
	}
	if _, err := GC(context.Background()); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base(), runPattern)
	if err != nil {
		return "", fmt.Errorf("make the scratch directory: %w", err)
	}
	start, err := startTime(os.Getpid())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ownerFile), fmt.Appendf(nil, "%d %s\n", os.Getpid(), start), 0o600)
	}
	return dir, err
}

// makeBase makes base, and trusts one that is there only if nobody else can have
// put anything into it.
func makeBase() error {
	if err := os.MkdirAll(base(), 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(base(), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of yours alone; remove it, or set TMPDIR", base())
	}
	return nil
}

func removeRun(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the scratch directory: %w", err)
	}
	return nil
}

// GC removes what runs left behind whose process is dead, and returns the paths:
// processes that outlived their parents, and scratch directories. Namespaces and
// interfaces go with the last process in them. What a Loop had set is put back.
func GC(ctx context.Context) (removed []string, err error) {
	dirs, err := filepath.Glob(filepath.Join(base(), runPattern))
	if err != nil {
		return nil, err
	}
	err = mendLoop()
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return removed, errors.Join(err, ctx.Err())
		}
		if owned(dir) {
			continue
		}
		if e := errors.Join(killStrays(dir), removeRun(dir)); e != nil {
			err = errors.Join(err, e)
			continue
		}
		removed = append(removed, dir)
	}
	return removed, err
}

// makingTime is how long a directory may be without an owner file: it is being
// made.
const makingTime = time.Minute

// owned says whether the process that made dir lives.
func owned(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil || len(b) == 0 { // the file is there before what it says
		info, err := os.Stat(dir)
		return err == nil && time.Since(info.ModTime()) < makingTime
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	now, err := startTime(n)
	return err == nil && now == start
}

// startTime tells apart two processes that had the same ID.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// Field 2 is the command in parentheses and may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[19], nil
}
