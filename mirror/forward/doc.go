// Package forward lets any node of a cluster serve a volume: a [Front] is one
// client's session, which lasts while primaries come and go, and a [Server] is the
// end of it at the primary.
//
//	NBD requests            the primary's node                    any other node
//	     |                         |
//	   Front --Route: Volume--> mirror.Volume <--Submit-- Server <--TCP-- Front --Route: Addr
//	     ^                         |                         ^
//	     +------- Dispatch --------+-------- Dispatch -------+
//
// # What a Front promises
//
// Every op is given back once. A write or zero carries an Origin: the Front's
// session, the op's number from 1 on, and the lowest number without an answer. If
// the leg that it was given to ends without an answer, the op goes to the next one
// with Retry set, and whoever is primary then applies it unless it was applied
// before. Reads and flushes change nothing and are just done again. An op is with
// one leg at a time: a volume of this node gives each back by itself, and a
// connection's ops are taken back only when its reader and its writer have ended, so
// that a late answer finds nothing to fill. What a hung disk still has comes back as a
// copy (mirror.Volume.Disown), which goes on in its place.
//
// Ops that wait for a leg are sent oldest first. Ops that were in flight together
// have no order that a client could count on, so new ones do not wait for those that
// an ended leg still has.
//
// What nobody waits for is not sent again (FrontConfig.Gone): its client may have
// come back on another connection, and written newer data there. For the same reason
// such an op is given back only when it cannot reach the volume any more by the
// connection that it was sent on: when the next leg has begun.
//
// # Generations
//
// A client with a name that attaches to another node begins a new generation there.
// The primary refuses connections of lower ones, ends those that it has, and waits
// until nothing of them can be submitted any more, before the new one is welcome. Who was
// superseded is not told an error (ErrSuperseded, [Front.Over]): its client's connection
// is closed, and what it had no answer for it sends again, where it is now. Connections of
// a client that are of one generation share a Front at their node, so that what comes by
// one of them is not overtaken by what comes by another later.
//
// # Cost
//
// At the primary's own node an op costs one short lock there and one back, no
// allocation and no copy. Over a connection all requests that wait leave in one
// write, all that have arrived are submitted as one batch, and all answers that are
// ready leave in one write; payloads are not copied but for what a receive brought
// along.
//
// # Bounds
//
// A primary holds at most [Limits] of one connection, data included, then it reads
// no more. What a Front holds is bounded by its clients.
//
// # Silence
//
// Both ends say something every 100 ms. An end that received nothing for 400 ms,
// while it wanted to, ends the connection, and so that nothing that its kernel still
// holds is sent later (SO_LINGER 0).
//
// # Wire format
//
// All integers are big-endian. Every frame is a header and payload bytes. The
// connection's first bytes are those of package port.
//
//	offset size field
//	     0    4 magic        0x4c534631, "LSF1": also the version
//	     4    1 kind         see below
//	     5    1 flags        bit 0 FUA, 1 no hole, 2 retry, 3 again, 4 forgotten
//	     6    2 errno        reply: Linux's number, 0 is success
//	     8    8 tag          names the request on its connection
//	    16    8 number       write, zero: the op's in its session, from 1; else 0
//	    24    8 lowest       write, zero: the client has all answers below this; else 0
//	    32    8 offset       first byte of the volume
//	    40    4 length       bytes of the volume; read and write: 1 to 64 MiB
//	    44    4 payload      bytes that follow the header
//	    48    4 payload CRC  CRC-32C of the payload, 0 if there is none
//	    52    4 header CRC   CRC-32C of bytes 0 to 51
//
//	kind         from    payload and meaning
//	hello      1 Front   see below; its first frame
//	welcome    2 primary none; requests may come
//	refuse     3 primary see below; the connection ends
//	read       4 Front   none
//	write      5 Front   the data
//	zero       6 Front   none; no hole = allocate
//	flush      7 Front   none
//	reply      8 primary a read's data, or an error's text, at most 256 bytes;
//	                     again: not done, or not for good; for the next primary;
//	                     forgotten: an error, mirror.ErrForgotten
//	ping       9 both    none
//
// A frame that no peer of this version sends, or one whose CRC does not match, ends
// the connection.
//
//	hello
//	     0    8 session      random, one a Front
//	     8    8 generation   of a client with a name; else 0
//	    16    8 incarnation  of the volume as the client knows it
//	    24    8 size         of the volume as the client knows it, bytes
//	    32    2 name length  n, at most 255
//	    34    n client       its name, UTF-8; empty if it has none
//
//	refuse
//	     0    1 reason       1 not primary, 2 old generation, 3 other incarnation
//	     1    1 name length  n
//	     2    n primary      the name of the node that is, if known
//
// A hello with a later incarnation or a larger size than the node's own is answered
// with "not primary": the node is behind.
package forward
