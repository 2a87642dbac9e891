// Package powercut cuts the power of a real file system at every flush, as often as
// there were flushes, and looks each time whether a store kept its promises: test
// support, run by scripts/lab/powercut.sh where the kernel has dm-log-writes.
//
// # How
//
// The kernel's dm-log-writes passes what a disk is given on, and keeps a log of
// it: every write in the order in which it became durable, and every flush. A Writer
// writes to a store whose file system is on such a disk and, when a sync has
// returned, has a mark put into the log: from here on all that was written before is
// promised. A Log is read back, and applied to an empty Disk entry by entry; at each
// flush, FUA write and mark the Disk is what would have been found had the power failed just
// then. The file system is mounted, the store opened as on another start of the
// machine, and a Model says of every sector whether it may hold what it holds.
//
// Nothing need be kept but the seed: operation n of a Plan follows from the two, and a
// sector tells the operation that wrote it. It may be the last that was
// promised, or any later one that covers it. Anything else is a loss; so is a
// sector that is newer than what was promised and whose region has no intent (with
// Model.Unpromised): after a power cut nobody would compare it.
//
// A check that can't fail proves nothing: on Unsynced, a file system whose syncs do
// nothing, the same must find losses.
//
// # Formats
//
// The log of dm-log-writes, integers little-endian; s is the sector size of
// the disk, at least 512, in which all sectors of the log are counted. An entry takes s
// bytes, then come its data, if it has any.
//
//	super       offset     size  field
//	            0          8     magic 0x6a736677736872
//	            8          8     version, 1
//	            16         8     entries
//	            24         4     s
//	            28         s-28  zero
//
//	entry       0          8     first sector
//	            8          8     n, sectors
//	            16         8     flags: 1 flush, 2 FUA, 4 discard, 8 mark, 16 metadata
//	            24         8     m, length of the mark
//	            32         m     mark
//	            32+m       ...   zero up to s
//	            s          n*s   what was written; a discard has none
//
// Marks are text: "synced-N", all operations up to N are promised; "fua-N", operation N is. They have no
// spaces: the kernel would take those for more than one argument.
//
// A sector that was written, 512 bytes, integers big-endian:
//
//	sector      offset     size  field
//	            0          4     magic "LPC1"
//	            4          4     checksum of all after it, CRC-32C
//	            8          8     seed
//	            16         8     number of the sector
//	            24         8     number of the operation
//	            32         480   the last 8 bytes again, 60 times
//
// # Cost
//
// A Disk is in memory, in chunks of 64 KiB of which those that were never written take
// none. Applying a log is linear in its size; a cut costs a copy of what was written,
// a mount and a read of the volume, which is why those volumes are small. There are no
// goroutines, and nothing is safe for concurrent use.
package powercut
