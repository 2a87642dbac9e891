// Package drill breaks a cluster on purpose, round after round, while writers and
// readers at its sites check what the volume promises. It knows nothing of
// processes or links: a [Cluster] breaks and mends.
//
// # A round
//
//	resume -> wait -> Break -> hold -> Mend -> Settle -> pause -> read back -> Compare
//	|<----------------- stalls are measured here ------------------->|
//
// The volume is a grid of 4 KiB blocks, each of which belongs to one writer. A
// writer has at most one write of a block in flight, and gives each the block's
// next generation. Every sector says whose it is:
//
//	offset  bytes  field
//	     0      8  "lksdrill"
//	     8      8  block number
//	    16      8  generation, 1 for a block's first; a sector of zeroes is generation 0
//	    24      4  writer
//	    28      4  number of the sector in its block
//	    32    476  filler that follows from the generation
//	   508      4  CRC-32C of all before
//
// (little endian). A multi-sector write may be torn where it was never
// acknowledged, so the sectors of a block are judged one by one.
//
// # What is counted
//
// Each block has a floor: the newest generation that a write was acknowledged for
// anywhere, or that a read has returned anywhere. Whatever a read returns that
// began later must be at or above it, and at or below what has been submitted.
//
// Lost: a block that is below its floor, or damaged, in the read-back at the end of
// a round, through any site.
//
// Two primaries: a block of which a read during the round was below the floor, and
// which was not lost, as nobody wrote it from then on. The two acknowledging
// primaries of a split volume cannot hide from it: what one of them
// acknowledged, the other does not have, and each reader asks its own site for what
// the others wrote last. It is the moment as the volume's users can see it, and
// needs no trust in what the nodes say of themselves. A split that no read fell into
// still leaves one primary's acknowledged writes behind: they are lost at the end.
//
// Differing: blocks that are not the same in all copies, as Cluster.Compare says.
//
// Stall: the longest time between two acknowledgements of a writer, from before
// the fault until everything is in sync again. Where a fault takes a site away, the
// volume can go on at the others only: the site with the shortest stall counts.
// Where it does not, the one with the longest does.
package drill
