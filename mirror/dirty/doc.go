// Package dirty is a set of byte ranges of one volume, at a fixed granularity:
// what is out of sync, what may have been written, what a resync has left to do.
//
// # Cost
//
// The set is a bitmap in pages of 3968 bits. A page without a bit costs one nil
// pointer, a page with all of them one pointer to a page that all maps share, any
// other 512 bytes. A volume of 1 TiB at 4 KiB has 67,652 pages: 0.53 MiB empty
// or full, 33.6 MiB at most. Adding a block to a page that is there takes some
// nanoseconds and allocates nothing; Next passes an empty page in one load.
//
// The page is also the unit in which a set is kept on disk and sent: 496 bytes
// leave room for a header and a checksum in one sector (see package store).
// TakeChanged says which ones differ from what was last kept.
//
// # Rounding
//
// A set never claims less than it was told: Add takes every block that the range
// touches, Remove only blocks that lie in the range wholly. The last block may
// be cut short by the volume's size; it counts as whole where the size ends it.
//
// Nothing here fails. Ranges may reach beyond the volume: what is outside is ignored.
package dirty
