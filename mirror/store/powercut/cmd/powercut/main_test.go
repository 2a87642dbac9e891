package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	diskSize = 16 << 20
	ops      = "40"
)

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, said)
	}
}

// writtenDisk returns a file system that a store was written on.
func writtenDisk(t *testing.T) []byte {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	image, mnt := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, diskSize); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs.ext4", "-q", image)
	must(t, "mount", "-o", "loop", image, mnt)
	var out bytes.Buffer
	err := run(context.Background(), []string{"write", "-store", filepath.Join(mnt, "vol"), "-size", "1048576", "-ops", ops, "-reopen", "15"}, &out)
	must(t, "umount", mnt)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// logOf is the log of a disk that was written at once, and then promised.
func logOf(t *testing.T, disk []byte, mark string) string {
	t.Helper()
	const sector = 512
	super, entry, promise := make([]byte, sector), make([]byte, sector), make([]byte, sector)
	binary.LittleEndian.PutUint64(super, 0x6a736677736872)
	binary.LittleEndian.PutUint64(super[8:], 1)
	binary.LittleEndian.PutUint64(super[16:], 2)
	binary.LittleEndian.PutUint32(super[24:], sector)
	binary.LittleEndian.PutUint64(entry[8:], uint64(len(disk)/sector))
	binary.LittleEndian.PutUint64(promise[16:], 8)
	binary.LittleEndian.PutUint64(promise[24:], uint64(len(mark)))
	copy(promise[32:], mark)
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, bytes.Join([][]byte{super, entry, disk, promise}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCheckOfAWholeDisk(t *testing.T) {
	disk := writtenDisk(t)
	for _, c := range []struct{ mark, ops, want string }{
		{"synced-40", "40", ""},
		{"synced-60", "60", "is missing after 1 of 1 power cuts"},
		{"synced-39", "40", "ends with 39 of 40 operations"},
	} {
		var out bytes.Buffer
		err := run(context.Background(), []string{"check", "-log", logOf(t, disk, c.mark), "-disk-size", "16777216",
			"-store", "vo*l", "-size", "1048576", "-ops", c.ops, "-intents"}, &out)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s operations: %v; %s", c.mark, c.ops, err, out.String())
		}
	}
}

func TestMisuse(t *testing.T) {
	for _, args := range [][]string{
		{}, {"read"}, {"write"}, {"write", "-store", "x", "-device", "y"}, {"write", "-device", "y", "-unsynced"},
		{"check"}, {"check", "-log", "x"}, {"check", "-nonsense"}, {"write", "-store", "x", "more"},
	} {
		if err := run(context.Background(), args, new(bytes.Buffer)); !errors.Is(err, errMisuse) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
