// Package host is a node's part in the volumes of its cluster: it follows what the
// raft group (package control) says of each, keeps the replica that this node has of
// it, if it has one, and makes this node the primary when that is its turn.
//
// A volume's [Seat] has one goroutine, which alone changes what the node is to it:
//
//	           a replica is added here
//	bystander ------------------------> following <------------------+
//	    ^                                |     ^                     |
//	    +--- it is removed --------------+     |                     |
//	                       Claim, and the      | the old I/O         |
//	                       proposal is in force| has ended           |
//	                                     v     |                     |
//	                                  leading -+-> stopping ---------+
//	                                      deposed, failed, handed over
//
//	bystander  no replica here: only forwards
//	following  a mirror.Replica takes what the primary sends; every tick it is asked
//	           whether it may claim the volume (mirror.Follower.Claim)
//	leading    a mirror.Volume does what clients and other nodes ask for
//	stopping   the volume has ended and its last local I/O has not: nothing can be
//	           followed before that, lest an old write lands on a newer one
//
// Every client's session with the volume at this node has a forward.Front, whatever the node is:
// its route is the volume if this node leads, the primary's node if another does, and
// nothing in between. So clients stay through all of that; their I/O pauses.
//
// # Handover
//
//  1. settle under load: flush and checkpoint, so that little is left to do
//  2. park: fronts get no route, connections of other nodes end; their ops come again
//     later under the same origin
//  3. settle: every write is complete at every copy in sync, and durable
//  4. propose {epoch+1, primary: the other}: from here on this node is nobody
//  5. the other one sees that, claims the volume at once, and finds this node's copy
//     equal, without comparing anything
//
// Cost: 1 and 3 a round trip and a sync each; 4 and 5 a commit each; then one round
// trip to connect and two to agree. It is also how a primary takes in a change of the
// volume's members or size: it hands over to itself. If 2 to 4 fail, it goes on.
//
// # What fails and how
//
//	the primary's node        a replica in sync claims the volume a grace after the last
//	                          heartbeat
//	raft has no leader        what is led goes on as long as nobody is to be taken out or
//	                          in; nothing is claimed
//	the local store, leading  the volume ends (mirror.ErrFailed); the others take over a
//	                          grace later; the replica here accepts nothing until the node
//	                          is started on a store that works
//	the local disk hangs      after 500 ms, or 5/3 of a lease if that is longer, another
//	                          copy in sync is named; the seat is stopping until it does not
//	this node, leading, is    requests wait. With --on-isolation error (and not --on-loss
//	cut off from the group    suspend) it steps down after four graces in which nothing
//	and a copy in sync        could be acknowledged: its clients, here and at nodes that
//	                          reach no other primary, get errors IsolationTimeout later
//
// # What an operator's word can't do
//
// A forced failover, to a copy that is not in sync, takes effect when raft's majority
// agrees. While the primary and at least one more copy in sync reach each other, but not
// the majority, they do not hear of it: their leases are each other's, and they go on
// acknowledging writes, which are lost when they hear. Before that word is given, one
// side must be known to be off. (A primary that is alone needs the group's lease, and
// has stopped before.)
//
// Two changes of a volume that reach its primary's node at once, as one, end its reign:
// in the epoch between them another node may have led. It claims the volume anew, or
// another does, a grace later.
//
// Under --on-loss suspend writes wait for every member that is or was in sync, which has
// a store on record. One that was just added has none, and nobody waits for it before it
// has caught up.
package host
