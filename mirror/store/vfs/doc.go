// Package vfs is the seam between a store and its disk: the few operations that
// a store needs of a file system, so that package memfs can stand in for it and
// lose power, fail and fill up at will.
//
// OS is the real one. An operation costs one interface call more than the system
// call that it is, and allocates nothing; only on a file opened with O_DIRECT is a buffer
// copied, through a pool, whose address is not aligned as the device asks.
//
// Errors are the system's, with the operation and the name (fs.PathError); who
// calls says what it wanted there.
package vfs
