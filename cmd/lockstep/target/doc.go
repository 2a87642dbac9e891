// Package target has what a sweep measures: lockstep, and what a user would pick
// instead, each set up as its users would, on the same link and on copies of one kind.
//
//	name         what it is                                          its volume
//	lockstep     three nodes, contract and volume as the flags say   NBD, or attached
//	drbd         DRBD 8.4, protocol C, both ends in one kernel       /dev/drbd140
//	md-nbd       md RAID-1 of a disk and an NBD export               /dev/md120
//	qemu-quorum  QEMU's quorum of a file and an NBD export           NBD, or attached
//	local        one disk, no mirror                                 /dev/loopN
//
// # What is the same for all
//
// Every copy is a new, sparse file in one directory (Config.Dir): so all have the same
// disk below, the page cache as its write cache, and fsync as its flush. Where the
// kernel needs a block device it is a loop device over that file. Each opening begins
// with new files and new connections, and as nothing but zeroes is in the copies, they are in sync without
// a copy of one to the other. After each use it is asked whether all copies were in sync
// all the time (volume.whole), then the volume is stopped, and the files are compared.
//
// What differs is in Facts as a setting, with its reason; a flush most of all: where
// it does not wait for the other site, that is said.
//
// # Nothing is left behind
//
// What a driver does it puts on a run, with how to undo it, before or at once after it
// did it. Compare and Close undo in reverse order, and go on after a failure. Processes
// die with this one, loop devices free themselves. What the kernel keeps (a DRBD
// resource, an md array, a device that lockstep attach left) is written down before it is made, in a locked file in
// /run/lockstep, with what identifies it: the file below it, the UUID, the
// identifier of who attached it. The next Open removes
// what is on record and is what the record says; anything else it does not touch, and
// says what is in the way.
//
//	absent --record--> on record --make--> there --remove--> on record --clear--> absent
//	                        \------- killed: the next Open looks, and removes -------/
//
// # To add one
//
// Write a file with a type that is a driver: open makes a volume on a run and says
// where its copies are, facts says what was chosen and why, wire is the link (Config.Wire, unless its
// traffic can't be put into a site). Add a line to kinds: its name, what it needs of the machine, and
// how it is prepared. TestKernelTargets then runs it, too.
package target
