// Package wire is the replication protocol's frames: what a primary and a
// replica say to each other over one TCP connection, byte for byte.
//
// # Cost
//
// A write is one frame to each replica and one cumulative acknowledgement
// back: one round trip, whatever the size or the queue depth. A header is 56
// bytes, 1.4 % of a 4 KiB block. Encoding and decoding allocate nothing and
// copy no payload: the header goes out beside the payload in one writev, and a
// decoded payload is a slice of the receive buffer.
//
// # Frame
//
// All integers are big-endian. Every frame is a header and Payload bytes.
//
//	offset size field
//	     0    4 magic        0x4c534b33, "LSK3": also the version
//	     4    1 kind         see below
//	     5    1 flags        bit 0 durable, 1 no hole, 2 zero, 3 more,
//	                         4 learner, 5 complete
//	     6    2 reserved     0
//	     8    8 epoch        the configuration that the sender acts under
//	    16    8 seq          a write's number; what else, see below
//	    24    8 watermark    every seq at or below it is committed
//	    32    8 offset       first byte of the volume that the frame is about
//	    40    4 length       bytes of the volume that the frame is about
//	    44    4 payload      bytes that follow the header, at most 256 KiB
//	    48    4 payload CRC  CRC-32C of the payload, 0 if there is none
//	    52    4 header CRC   CRC-32C of bytes 0 to 51
//
// A frame whose header or payload does not match its CRC is a corruption: the
// receiver names it and closes the connection; nothing of the frame is applied.
//
// # Kinds
//
// From the primary (P) to the replica (R) and back:
//
//	kind        value from  seq          payload and meaning
//	hello           1 P     0            Hello: who I am, under which epoch
//	welcome         2 R     0            Welcome: what I hold; ranges follow
//	refuse          3 R     0            text: why not; R closes after it
//	write           4 P     write's seq  the data; durable = FUA; more = a part,
//	                                     the next one follows at once
//	zero            5 P     write's seq  none; no hole = allocate
//	flush           6 P     flush's seq  none; always durable
//	ack             7 R     applied      none; watermark = durable (see below)
//	sum             8 P     request's    none; zero = sender holds only zeroes
//	digest          9 R     request's    a SHA-256 for each 64 KiB of the range,
//	                                     or none with flag zero, for the part of
//	                                     the range that is known to be zeroes
//	copy           10 P     last write's the data, or none with flag zero;
//	                                     learner = R is one. The data may hold
//	                                     writes up to seq; 0: none has a number
//	ping           11 P     request's    anything, thrown away; durable = sync
//	                                     first; complete = and R is a full copy
//	pong           12 R     request's    none
//	failed         13 R     0            text: R's store failed; R closes after it
//	configure      14 P     0            none; epoch = the one in force from here
//	                                     on; learner = R is not in sync
//	ranges         15 R     0            Ranges: what may differ on R; more
//	origin         16 P     write's seq  an Origin: whose the next op is
//	origins        17 P     0            Origins: all that is remembered; more;
//	                                     complete = none was forgotten
//	mark           18 P     number       none: a generation of writes begins
//	retire         19 P     mark's       none: all before that mark is durable
//	                                     everywhere; its intents may be cleared
//
// Seqs rise strictly within one connection, but for the parts of one write, which
// share theirs; it is applied when its last part is. An ack is cumulative: every write,
// zero and flush of this connection up to seq is applied, and every one up to
// watermark is on stable storage. Frames are applied in the order of the
// connection, so ping is a barrier. An op's frames may carry an earlier epoch of
// the same primary: what fences is the connection's.
//
// # Hello and Welcome
//
//	hello
//	     0    8 size         the volume's size in bytes
//	     8   16 session      random, one a run of the primary
//	    24   16 volume       the volume's ID, random
//	    40   16 replica      the ID of the primary's own store
//	    56    1 flags        bit 0: the primary's store was just created
//	    57    1 reserved     0
//	    58    2 name length  n, at most 255
//	    60    n volume name  UTF-8
//
//	welcome
//	     0    8 size         of the replica's store
//	     8    8 epoch        the highest that R has seen
//	    16   16 replica      the ID of R's store, random
//	    32    1 flags        bit 0 full copy, 1 it held this volume before, 2 the
//	                         ranges are its writes above the watermark; else they
//	                         are its write-intent bitmap; 3 it was a full copy
//	                         until its machine lost power
//	    33    7 reserved     0
//
// # Ranges and Origins
//
//	range
//	     0    8 offset       bytes
//	     8    8 length       bytes
//
//	origin
//	     0    8 session      the client's
//	     8    8 number       of the op in its session
//	    16    8 lowest       the client has the answers to all numbers below
//	    24    1 flags        bit 0: nothing of the session from lowest on is forgotten,
//	                         by who sends this; before an op: from here on nothing is
//	    25    7 reserved     0, ignored
//
// In origins number 0 names no op, only its session.
package wire
