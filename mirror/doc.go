// Package mirror is the replicated volume: one primary that acknowledges a
// write when every in-sync replica has it, and the replicas that it writes to.
// The protocol is PacificA's (Lin et al., 2008): data goes from the primary to the
// replicas; who they are is a configuration, kept elsewhere, which changes by
// compare-and-swap on its epoch.
//
// # Parts
//
//	Machine      the primary's protocol: a pure state machine, Step(Event) []Action
//	Follower     a replica's: what it may accept, and what it must remember; pure too
//	Peer         the primary's side of a connection, less its I/O: frames and events
//	Applier      the replica's side: frames, and what they do to its store
//	Comparison   finding by digest what differs
//	Volume       the primary's driver, with a link for each replica
//	Replica      the replica's driver, with a session for its primary
//	ownRoster    the configuration of a volume that flags name, in the primary's store
//	groupRoster  that of a volume whose configuration a raft group keeps (Service, Reign)
//	pacer        how fast resync may go
//	wire         frames, byte for byte
//	store        one copy on disk
//	sim          whole clusters of all that but the drivers, from one seed
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
// allocation; two wake-ups at the primary and one at the replica. Memory: what the
// client has in flight, plus the replica's receive buffer (512 KiB).
//
// The first write to a region (4 MiB) since a checkpoint waits, at each site, for
// one fdatasync of the write-intent bitmap, which all that wait then share.
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
// take back; and it is answered only while no other member may have become
// primary (see lease.go), which is asked after its data was fetched.
//
// # Configurations
//
// A member in sync that is lost holds writes. After LossTimeout (unless the policy
// is to suspend) the machine proposes a configuration without it, and completes what
// waited when that is committed, not before. What the member lacks from then on is noted.
// One that comes back as a full copy before that is sent what it has not
// acknowledged. One that is not a full copy any more holds writes until it was
// taken out.
//
// # Resync
//
// A member that is not in sync and connected is a learner: it is sent every new
// write, which nobody waits for, and beside them what it lacks:
//
//	missed   blocks (4 KiB) that were written while it was away: copied
//	maybe    regions where it may differ, its own write-intent bitmap and this copy's,
//	         or everything: compared by digest (SHA-256 of 64 KiB), then copied
//
// A copy takes its place among the ops: it reads what earlier writes wrote, and later
// writes to its range (at most 256 KiB) wait until its data is in line for the
// replica. A comparison needs no such order. A bit is taken out when its copy
// begins and counts again if the connection ends before the replica acknowledged it. When nothing
// is left writes wait for the member as if it were in sync, it is flushed and marks
// itself a full copy, and it is proposed. Memory: a bit for each block of 4 KiB in
// pages that are there only where a bit is set; at most 32 copies and 4 comparisons on their way.
//
// # Promotion
//
// A new primary makes the others in sync agree with its copy before it serves: on
// the writes above the watermark that each remembers, or, where a process or a machine
// went down in between, on the union of write-intent bitmaps. It takes part only
// in an epoch of its own; replicas refuse lower ones, durably.
//
// # Checkpoints
//
// Every 15 s the primary ends a generation of writes: all of it complete and
// flushed at every site in sync, and out-of-sync bitmaps saved, the intents of
// regions that were not written since are given up at every site. That bounds what is
// compared after a crash to what was written in the last half minute.
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
//	replica lost (crash, cut)  Writes wait, reads go on; or after LossTimeout writes go on
//	                           without it. See Configurations and Resync.
//	replica hangs              The same: it is lost when it has said nothing for 2 Timeouts.
//	replica lost power         It says so: it was a full copy, and what it may lack lies
//	                           in its write-intent bitmap. It is taken out, compared
//	                           there, and joins again.
//	replica's write fails      As if it were lost; it says why, and the log shows it.
//	replica's sync hangs       It is lost after 30 s, until its disk is back.
//	replica's sync fails       It accepts nothing more; its store stays broken.
//	another store answers      It is taken out and compared in full.
//	local write or sync fails  That op gets the error. The copies may differ there, so the
//	                           volume takes no more writes (ErrFailed); reads go on. When
//	                           it is opened again the replicas are made equal.
//	local read fails           That read gets the error, although another copy may have the
//	                           data: a sector that neither has would make the volume go
//	                           from one to the other for ever.
//	primary crashes            Unacknowledged writes may be at any site or none. See Promotion.
//	primary lost power         It waits for all that were in sync. If one of them kept its
//	                           power: ErrBetterCopy, serve that one.
//	                           If all did: they are made to agree on what this one has.
//	frame corrupted            The replica names it, applies nothing of it and closes; the
//	                           frame is sent again.
//	a copy that led            As a replica it follows only who was in sync with it when it
//	                           was the primary; others would undo what it acknowledged.
//	second primary             Refused while the first is connected; one with a higher
//	                           epoch of the same volume replaces it, a lower one is fenced.
package mirror
