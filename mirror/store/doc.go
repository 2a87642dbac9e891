// Package store is one replica on disk: a sparse file of the volume's size.
//
// # Cost
//
// A read or a write is one system call on the page cache. A read that would
// have to wait for the disk is refused by ReadCached, so that a caller on a
// latency-critical goroutine can move it elsewhere. Nothing is held in memory.
//
// # What fails and how
//
// Every error says what was tried on which file and where. After a failed sync
// the kernel may have thrown away what it could not write and called it clean,
// so a later sync that succeeds would be a lie: the store is broken from then
// on, refuses writes and syncs with ErrBroken, and never retries. Reads go on. A
// file FILE.broken beside it says so to later processes, which refuse to open it.
//
// The file is locked (flock) while it is open: a second process that opens it
// is told so and nothing is disturbed.
//
// Metadata, the write-intent bitmap and out-of-sync bitmaps will live beside
// the data here; until then a replica that comes back in a new process is
// compared in full (see package mirror).
package store
