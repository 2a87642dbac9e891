// Package port lets one TCP port of a node carry everything that the nodes of a
// cluster say to each other: the first bytes of a connection tell what it is.
//
// # Preface
//
//	offset size field
//	     0    1 kind         'R' raft, 'V' replication, 'F' forwarded requests
//	     1    1 name length  n, 1 to 255; not for 'R'
//	     2    n volume       its name, UTF-8; not for 'R'
//
// What follows belongs to the protocol of that kind. A connection that begins with
// 'G', 'P' or 'D' is HTTP (GET, POST, PUT, PATCH, DELETE), and that byte is the
// request's own. Any other first byte ends the connection.
//
// # Cost
//
// A preface leaves in the same packet as what is written first. It is read with
// two or three small receives of bytes that are there already; after that a
// connection is the plain *net.TCPConn, with nothing in between.
//
// # Bounds
//
// A preface has [Patience] to arrive. Of connections without one there are at most
// [MaxUndecided]; one more ends the one that has waited longest, so that silent
// ones keep nobody out. At most 64 connections of a kind wait to be accepted.
package port
