// Package nbd serves block volumes over the NBD protocol, many requests in flight
// per connection, and is a client of such servers.
//
// # Server
//
// A [Server] offers [Export]s, each with a [Backend], on any number of listeners
// ([Listen], [Activated]) and single connections ([Stdio]). Exports are fixed, or come
// and go with a [Catalog], and a connection may have a backend of its own
// ([Attachment]). The server speaks the fixed
// newstyle handshake with EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY,
// LIST_META_CONTEXT and SET_META_CONTEXT (base:allocation), and the commands READ,
// WRITE, FLUSH, DISC, TRIM, CACHE, WRITE_ZEROES and BLOCK_STATUS. It has neither
// TLS nor extended headers, and answers both with ERR_UNSUP.
//
//	          reader goroutine                    any goroutine
//	socket -> recv -> parse -> validate -> Submit  ...  Complete -> encode -> sendmsg -> socket
//	          one      all that  one       one                      in place  one a       |
//	          call     arrived   place     batch                              call        v full
//	                                                                            writer goroutine
//
// The reader takes as much as there is in one receive, turns all complete
// requests in it into one batch and submits that. Payloads below 32 KiB are copied
// out of the receive buffer; of larger ones the part that has not arrived yet is
// received straight into the request's own buffer. Complete encodes each reply
// into room in front of its data, so that it is one contiguous piece, and sends all
// that is ready in one non-blocking call. While one goroutine sends, others only
// queue. What the socket does not take is left to the connection's writer: a
// client that does not read delays nobody but itself.
//
// # Cost
//
// Sketch for 4 KiB at depth 1, without the backend: receive 1 us, parse, validate
// and encode 30 ns, send 2 us, and two wake-ups across CPUs, 5 to 25 us each, which
// dominate; a connection whose SyscallConn spins before it sleeps saves the
// server's. At depth 32 batches spread the calls: under 1 us a request. No allocation per request; the benchmarks count them.
// Buffers are pooled by powers of two.
//
// # Bounds
//
// Requests and buffer bytes count against [Limits] from the moment they are
// received until the reply was sent. At a bound the reader stops reading, and the
// client feels it through its socket. A connection that has nothing in flight may
// always take in one request, whatever its size up to [MaxPayload] and however
// much memory others hold. A handshake has 32 options of at most 64 KiB, strings
// of at most 4096 bytes, and 10 s. BLOCK_STATUS answers with at most [MaxExtents].
//
// # Order and durability
//
// Replies come in the order of completion. A FLUSH covers every write that was
// replied to before it on any connection, because all of them share one backend
// and a reply follows Complete; that is why CAN_MULTI_CONN is announced. FUA is
// accepted with every command. A failed request is an error reply, and the
// connection goes on.
//
// A client whose connection broke may send again what it had no reply for, on a new
// connection, and then write newer data. The old copy must not land after that.
// So a connection is draining, not gone, until the backend has completed all that
// it had in flight, and a new connection gets its answer to GO or EXPORT_NAME only
// when no connection of its group (Export.Group: the export, or one client of it) is
// draining or has been closed by its client. A backend that would keep a request for
// long can see that nobody waits for it ([Request.Abandoned]). A limit remains: a TCP client that vanished without
// closing (its machine lost the network) looks alive until keepalive gives up on
// it, and what it sent may still be executed.
//
// # What fails, and how
//
//	refused by validate               error reply, payload skipped
//	  command or flag unknown         EINVAL
//	  beyond the end                  ENOSPC for WRITE and WRITE_ZEROES, else EINVAL
//	  READ or WRITE over 64 MiB       EINVAL
//	  not a multiple of MinBlock      EINVAL
//	  read-only                       EPERM
//	  FAST_ZERO without it            ENOTSUP
//	length 0                          success without asking the backend (BLOCK_STATUS: EINVAL)
//	no such export                    ERR_UNKNOWN
//	found or attached with an error   ERR_POLICY with its text; the client may ask again.
//	                                  ERR_UNKNOWN if that is fs.ErrNotExist
//	EXPORT_NAME of such a one         the connection is closed: it has no error reply
//	export dropped                    the connection is closed, as if its client had gone
//	failed by the backend             error reply; the errno in the chain, or EIO
//	  with ErrHangup                  the connection is closed: its client should go elsewhere
//	option unknown / malformed / big  ERR_UNSUP / ERR_INVALID / ERR_TOO_BIG
//	wrong magic, unknown client flags,
//	options without end, 10 s passed  the connection is closed
//	client gone                       what is in flight is finished, its replies dropped
//	too many connections              a new one is closed at once
//	shutdown                          closed when nothing is in flight; if that is not within
//	                                  200 ms, reading ends, what was submitted is answered, then
//
// Of errnos the protocol knows EPERM (also for EACCES, EROFS), EIO, ENOMEM, EINVAL,
// ENOSPC (also for EDQUOT, EFBIG), EOVERFLOW, ENOTSUP and ESHUTDOWN.
//
// # Wire formats
//
// All numbers are big-endian. A request is 28 bytes, a WRITE's payload follows:
//
//	offset  size  field
//	     0     4  magic 25609513
//	     4     2  command flags: 1 FUA, 2 NO_HOLE, 4 DF, 8 REQ_ONE, 16 FAST_ZERO
//	     6     2  command: 0 READ, 1 WRITE, 2 DISC, 3 FLUSH, 4 TRIM, 5 CACHE, 6 WRITE_ZEROES, 7 BLOCK_STATUS
//	     8     8  cookie, echoed in the reply
//	    16     8  offset in bytes
//	    24     4  length in bytes
//
// A simple reply is 16 bytes, a successful READ's data follows:
//
//	0     4  magic 67446698
//	4     4  error, 0 is success
//	8     8  cookie
//
// Once structured replies are agreed on, READ, BLOCK_STATUS and every error are
// answered with one chunk of 20 bytes and a payload:
//
//	     0     4  magic 668e33ef
//	     4     2  flags: 1 DONE, the last chunk of the reply
//	     6     2  type
//	     8     8  cookie
//	    16     4  payload length
//
//	type            payload
//	0     NONE          nothing (a READ of length 0)
//	1     OFFSET_DATA   offset (8), data
//	5     BLOCK_STATUS  context (4), then for each extent: length (4), state (4): 1 hole, 2 zero
//	8001  ERROR         error (4), text length (2), text
//
// An option is 16 bytes and its data, a reply to it 20 bytes and its data:
//
//	 0     8  magic "IHAVEOPT"              0     8  magic 0003e889045565a9
//	 8     4  option                        8     4  option
//	12     4  data length                  12     4  reply type, errors have bit 31
//	                                       16     4  data length
//
// testdata/wire has conversations, byte by byte.
//
// # Client
//
// [Dial] connects to what an NBD URI names. A [Client] may be used by many
// goroutines at once; each call is one request in flight. [Negotiate] only does the
// handshake, for someone else to go on with the socket: package kernel.
package nbd
