// Package store is one replica on disk: the volume's data in a sparse file or on
// a block device, and beside it a directory of what must be known after a crash.
//
//	PATH                              the data
//	PATH.lockstep/meta.record         whose copy this is, and whether a full one
//	PATH.lockstep/broken.record       only of a broken store: why
//	PATH.lockstep/broken-ahead.record the same, written ahead for a disk that is full then
//	PATH.lockstep/NAME.record         what WriteRecord kept
//	PATH.lockstep/intents             the write-intent bitmap
//	PATH.lockstep/outofsync-REPLICA   what an absent replica misses, ID in hex
//
// Options.Meta puts the directory elsewhere; a block device has to be told where.
//
// # Life
//
// Open creates what is not there: first the directory, then the intents, then the
// metadata with the flag blank, and last the data gets its size. A crash anywhere
// in between leaves what the next Open completes. A blank store holds nothing and is
// New; the first Prepare, WriteAt or Zero ends that, durably, before anything else.
// Data that is found without metadata becomes a store with a new replica ID that is
// not Complete: whose copy it is, nobody knows.
//
// Open records the machine's boot ID, and CloseClean that it was the last to touch
// the store. From those two Open tells how the store was left:
//
//	flag clean   boot ID     it was      Open
//	set          any         stopped     goes on
//	clear        the same    killed      goes on: the page cache is still there
//	clear        another     cut off     Complete becomes Lossy, unless blank
//
// In the last case writes that were acknowledged may be lost, and only Update, by
// whoever compared the copy with a better one, makes it Complete again.
//
// # Growing
//
// A store grows when it is opened with Options.Grow and a larger size, never while it is
// in use, and never shrinks. First the flag growing becomes durable, then the data gets
// its size, and last the metadata have it. So a crash leaves a store of the old size
// whose data may be longer, which goes back to that size, or goes on growing, as the
// next Open asks; or one of the new size. The bitmaps are not touched: a file that was made
// when the volume was smaller has the bits of the blocks there were then, and what came
// since has none. It is replaced when it is next written.
//
// A file gains a hole: growing costs three small syncs, and one of the data. A device
// must have the size already; what it gains is zeroed, which takes as long as the device takes.
//
// # Intents
//
// The intents say which regions may differ from what was last synced, here, or from
// other replicas after an unclean stop. A region's bit is durable before a write
// reaches the data. Those who need one at a time share a sync: while one syncs, the
// others gather, and the first of them writes and syncs for all. A bit that is
// durable stays so until Retire, so that nearly all writes find their region ready.
//
// Retire(before) clears the bits of regions that were last written in a generation
// before that. The caller begins a generation, has everything synced here and
// on the other replicas, and then retires what is older. A write belongs to the
// generation in which it ended: one that was in flight when the generation began
// need not be covered by the sync, and keeps its bit. Clearing is written but not
// synced; a bit that comes back with a power loss costs a comparison.
//
// # Formats
//
// Integers are big-endian, checksums CRC-32C. A record is replaced as a whole: a new
// file is written, synced and renamed over the old one.
//
//	record      offset     size  field
//	            0          4     magic "LSR1"
//	            4          4     n, length of the data, at most 1 MiB
//	            8          n     data
//	            8+n        4     checksum of all before it
//
//	meta, the data of a record
//	            0          4     magic "LSM1"
//	            4          1     flags: 1 complete, 2 clean, 4 blank, 8 lossy, 16 growing
//	            5          1     zero
//	            6          2     w, length of why, at most 200
//	            8          16    volume
//	            24         16    replica
//	            40         16    boot ID
//	            56         8     size of the volume in bytes
//	            64         4     region in bytes
//	            68         4     block in bytes
//	            72         8     epoch
//	            80         8     incarnation
//	            88         8     zero
//	            96         w     why
//
// A bitmap is pages of 512 bytes, a sector each, so that none is torn. The first is
// the header; page n has the bits of blocks 3968*(n-1) on. Pages change in place. A page
// that is all zero bytes was never written and has no bit.
//
//	page        offset     size  field
//	            0          4     magic "LSB1"
//	            4          4     kind: 1 intents, 2 out of sync
//	            8          4     number of the page
//	            12         496   bits: block k of the page is bit k%8, from the least
//	                             significant on, of byte k/8; or the header
//	            508        4     checksum of all before it
//
//	header      12         8     size of the volume in bytes when the file was made
//	            20         8     bytes that a bit stands for
//	            28         16    replica that is out of sync, or zero
//	            44         464   zero
//
// # What fails and how
//
// Every error says what was tried on which file and where, and how to mend it where
// that can be done.
//
// A failed sync of the data or the intents breaks the store: the kernel may have
// thrown away what it could not write and called it clean, so a later sync that
// succeeds would be a lie. It refuses writes and syncs with ErrBroken from then on, and never
// retries, not even for those who asked while it ran. Reads go on. The record "broken" says so to later processes, which refuse
// to open it.
//
// An intent that cannot be written, on a full disk, fails the write that needs it and
// nothing else. Damaged pages of a bitmap count as set, and the whole of it if the
// header or the file is damaged or missing: that costs comparisons, and Warnings or an
// error that wraps ErrCorrupt says so. Damaged metadata is refused.
//
// A save of an out-of-sync bitmap that is cut off leaves each page the old or the
// new. One that failed is written anew as a whole by the next.
//
// The data and the intents are locked (flock) while the store is open: a second
// process that opens either is told so and nothing is disturbed.
//
// # Cost
//
// A read is one system call. A read that would have to wait for the disk is refused by
// ReadCached, so that a caller on a latency-critical goroutine can move it elsewhere.
// A write to a region that is ready is one system call and two atomic operations on
// each region it touches, some 10 ns, and allocates nothing. The first write
// to a region is one page of intents, 512 bytes, and one sync more, shared.
//
// Memory is 8 bytes a region and the maps: 2 MiB for 1 TiB in regions of 4 MiB. Opening
// such a store reads at most 35 KB of intents and nothing of the data.
package store
