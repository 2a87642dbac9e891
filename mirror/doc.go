// Package mirror is the replicated volume: one primary that acknowledges a
// write when every in-sync replica has it, and the replicas that it writes to.
//
// # Parts
//
//	Machine   the protocol: a pure state machine, Step(Event) []Action
//	Volume    the primary's driver: does what the Machine asks
//	link      one replica's connection, from the primary's side
//	Replica   the other side: applies frames in order and acknowledges
//	wire      frames, byte for byte
//	store     one copy on disk
//
// # A write, and what it costs
//
//	client     primary                              replica
//	  | write    |                                    |
//	  |--------->| CRC-32C, seq, frame queued         |
//	  |          | one sendmsg for all frames there   |
//	  |          |----------------------------------->| CRC checked, pwrite
//	  |          | pwrite (meanwhile)                 | one cumulative ack
//	  |          |<-----------------------------------| for all that came
//	  |<---------| local copy and all acks: complete  |
//
// One round trip, whatever the size or the queue depth. Per write: one pwrite at
// each site, one recv and one send on each hop, all shared by the writes that
// are there at the same time; the payload is copied only by those calls; no
// allocation; two wake-ups at the primary and one at the replica. Memory: what the client has in flight, plus the replica's receive buffer
// (256 KiB, or the largest frame).
//
// A flush or FUA asks each site for a sync that begins after the write was
// applied; all sites sync at the same time, and all that wait share one sync.
//
// # Order
//
// A write gets its seq under the volume's lock, which also puts it in line for
// every replica: the order of seqs, of frames and of a replica's application are
// the same. Locally, ops that overlap wait for each other (see conflict), others
// run in parallel on the goroutines that brought them. A read waits for writes
// in flight that it overlaps, so that nothing is ever read that a failover could
// take back.
//
// # Connections
//
// TCP starts a connection slowly. A link is primed before writes depend on it,
// so a first large write costs a round trip and its transfer. For the same after
// idleness the system must not forget the congestion window: sysctl
// net.ipv4.tcp_slow_start_after_idle=0.
//
// # What fails and how
//
//	what                       what happens
//	replica lost (crash, cut)  Writes wait, reads go on. It is reconnected; the same run
//	                           of it is sent what it did not acknowledge; a new run is
//	                           compared in full by SHA-256, copied where it differs, then
//	                           sent what was not applied here when that began. The
//	                           waiting writes complete.
//	replica's write fails      The same; it says why, and the log shows it.
//	replica's sync fails       It accepts nothing more until it is restarted; writes wait.
//	local write or sync fails  That op gets the error. The copies may differ there, so the
//	                           volume takes no more writes (ErrFailed); reads go on. When
//	                           it is opened again the replicas are made equal to the
//	                           primary's copy.
//	local read fails           That read gets the error.
//	primary crashes            Unacknowledged writes may be at any site or none. At its
//	                           restart the replicas are made equal before writes complete.
//	frame corrupted            The replica names it, applies nothing of it and closes; the
//	                           frame is sent again.
//	second primary             Refused while the first is connected; one with a higher
//	                           epoch replaces it, one with a lower epoch is refused.
//
// # What is fixed for now
//
// The configuration (epoch, in-sync set) is given at start and never changes:
// losing a replica suspends writes. mirror/control will commit changes of it
// through raft and hand them to the Machine as events; Configuration is where
// they go in.
package mirror
