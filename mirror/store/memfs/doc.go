// Package memfs is a file system in memory that loses power, fails and fills up
// when told to: test support for what is built on package vfs. It is simulated:
// what it shows is that a program keeps its promises on a disk that behaves as
// described here, not that a disk does.
//
// # What a power loss leaves
//
// Crash takes from every file what was not synced, sector by sector (512 bytes):
// a sector holds what it held at the last sync, what it holds now, or what it held
// at one of the writes between, as if the kernel had written it back
// just then. A write of many sectors is torn between them, and within one only
// with TearSectors. A size that was not synced is the old or the new. Of what was
// created, renamed and removed in a directory since its last SyncDir, each step
// happened or did not, independently of the others; a rename is one step.
//
// A sync that fails leaves each sector on the disk or not, and what is not stays
// readable: no later sync that succeeds writes it. That is what Linux does.
//
// Kill ends the processes only: everything written is still there.
//
// # Crash points
//
// Ops counts the operations that change something, syncs among them. After
// CrashAt(n) the n-th of them from then on, and everything after it, returns
// ErrCrashed until Crash or Kill; whether that operation itself took place is up to what
// those do, but a sync did not. Running a program once for each n visits every
// place at which it can stop.
//
// # Cost
//
// Data is held in pages of 4 KiB; a hole costs nothing, and a file 4 bytes for each
// MiB up to the last that was written. Everything is linear in what it touches. There are
// no goroutines, and with one caller the same seed gives the same bytes.
package memfs
