// Package kernel makes block devices, /dev/nbdN, of what NBD servers export, through the
// generic netlink interface of Linux's nbd.ko, and keeps them while servers come and go.
//
// The handshake is done here, from user space ([nbd.Negotiate]); then the kernel gets the
// sockets, and nothing of this package is on the path of a request.
//
//	file system -> /dev/nbdN -> nbd.ko ==socket==> server 1
//	                              ^                server 2
//	                   [Netlink]  |                   ^
//	                            Agent ----handshake---+
//
// # States of an Agent
//
//	reaching --handshake--> connecting --CONNECT--> attached
//	adopting (a dead agent left the device) ----> lost
//	attached --a socket ended--> lost --handshake--> handing --all taken--> attached
//	lost, handing --the kernel says EINVAL--> gone
//	lost --the export is another one, or no more--> failed
//
//	state       what holds                          what ends it
//	reaching    no device yet; servers are tried    one lets the agent in; none has the export: error
//	connecting  the sockets are past the handshake  CONNECT; EBUSY: the next free device
//	attached    the kernel has all sockets          a socket is closed by either side
//	lost        no socket works; requests wait in   a handshake that has ended what is left of
//	            the kernel                          the earlier stay
//	handing     RECONFIGURE until every socket is   5 s without; a new socket that ends: lost
//	            taken
//	gone        somebody disconnected the device    -
//	failed      it is disconnected: I/O errors      -
//
// Sockets end when the server closes them, when the kernel's request timer gives one up,
// and when the device is disconnected; the agent sees all of that on its own copies
// (POLLRDHUP), and so needs no notice from the kernel. Servers are tried in the order of
// Config.Servers, beginning with the one after the last: a server that hangs costs
// Config.Stall only if it is that one's turn.
//
// # No old copy lands on newer data
//
// After a loss the kernel sends again what it has no reply for. In this order:
//
//  1. the old sockets are shut, so that nothing more is sent by them
//  2. the handshake: Config.Export names a new stay, and a server that lets it in has
//     refused, or finished, what is left of earlier ones. lockstep node and serve do
//  3. RECONFIGURE: the kernel sends by the new sockets
//
// Of a foreign server, which has no Config.Export, that is not known: most go on with what a
// connection had asked for when that has ended. If a write takes longer than the request
// timer there, it is sent again, and the first copy may land after newer data. So that timer
// is a minute by default, as long as a reply can be expected to take, and each new
// connection is logged as a warning.
//
// With more than one connection nbd.ko moves a request whose timer ran out to another
// socket by itself, without a handshake. A server that keeps the order of what it has
// received, as lockstep node does for one stay, is safe unless the first copy is on its way
// through the network for longer than the request timer. So the default is one.
//
// # What nbd.ko does (6.1), and what is done about it
//
//	it wants simple replies only        nothing else is asked for
//	any error reply is EIO              a server that can be replaced closes the socket instead
//	requests in flight on a socket      they wait for the request timer, which has whole
//	that ended                          seconds: a pause of 1 to 2.5 s with --timeout 1s
//	a reply that takes longer than      requests that begin on the next path have twice the
//	the request timer ends the socket   time if the last one did not last, up to 8 s. A
//	                                    request keeps what it began with: one that takes
//	                                    longer than that each time is sent for ever
//	RECONFIGURE without a dead socket   it answers with success and drops the new one. A
//	                                    socket that was taken has the request timer as its
//	                                    send timeout: that is looked at, and asked again
//	no socket for DEAD_CONN_TIMEOUT     all requests fail: the default is a day
//	its netlink family is in the first  the socket is opened in the namespace of process 1;
//	network namespace only              servers are dialled from the present one
//	one block size                      it is the logical and the physical one
//
// # Whose device
//
// CONNECT of a device that is in use fails in the kernel (EBUSY), so two agents that look
// for a free one never get the same. A device that an agent made says so in its
// BACKEND_IDENTIFIER (/sys/block/nbdN/backend):
//
//	lockstep OWNER COUNT "DESCRIPTION"
//
// OWNER is Config.Owner's, COUNT the number of sockets, which the kernel never changes,
// DESCRIPTION what the server said of the export (Go-quoted). The
// kernel refuses a RECONFIGURE that does not repeat it. An agent that is started for a
// device that is in use takes it over if OWNER is its own, and if no other agent lives:
// a living one has a lock on /run/lockstep-nbdN.lock. Nobody else's device is touched.
//
// A server that describes the export otherwise than before, or has less of it, serves
// something else: the device fails rather than to show other data.
//
// # Messages
//
// All numbers are in the machine's byte order. genl.go has the frame, netlink.go the
// numbers; testdata/*.hex has every message byte for byte.
//
//	CONNECT      INDEX u32, SIZE_BYTES u64, BLOCK_SIZE_BYTES u64, TIMEOUT u64 (s),
//	             SERVER_FLAGS u64, DEAD_CONN_TIMEOUT u64 (s), SOCKETS, BACKEND_IDENTIFIER
//	RECONFIGURE  INDEX, SIZE_BYTES if it grew, TIMEOUT and SOCKETS if there are any,
//	             BACKEND_IDENTIFIER
//	DISCONNECT   INDEX
//	SOCKETS      for each: SOCK_ITEM { SOCK_FD u32 }
package kernel
