// Package sim simulates whole clusters of lockstep from one seed, at virtual time, in
// one thread: the same seed gives the same run, byte for byte, so that a failure that was
// found once can be looked at as often as it takes. It is test support; what it runs is real:
//
//	mirror.Machine, mirror.Peer, mirror.Comparison   the primary
//	mirror.Follower, mirror.Applier                  a replica, and who may be the next primary
//	mirror/wire                                      every frame goes through bytes
//	mirror/store on mirror/store/memfs               every byte is on a disk that loses
//	                                                 power
//	control.State.Apply                              what the group's commands come to
//
// Simulated are the network, the clocks, the operator, the clients, what nodes forward
// for them, and the raft group around its real state machine; and the drivers are this
// package's own (node, session, lead, peer, takeover, handover), so that a fault can
// come between any two things that a driver does.
//
// # The group
//
// Three places vote: the nodes and the witness, which holds no data, if there are two
// members; else any three of these. Its leader, its terms, its log and its answers are
// subject to the network like all else (type group has what it is and is not of raft):
//
//   - A command is in force when a majority has it, whether or not its sender hears of
//     that; it is sent again, under the same number, until its outcome is known.
//   - A node acts on what it has applied itself, which may be behind, and after a start
//     may be an old snapshot.
//   - A lone primary's lease is in the leader's memory. It is given when a majority
//     still follows that leader; a new leader waits for what the one before may have
//     promised.
//
// # Clients
//
// Some have sessions of their own. The others have a name and are at a node, whose
// process has the session (type front); they leave it when it ends, when they are
// tired of waiting, or for no reason, and begin a new generation elsewhere. What they
// left behind goes on trying.
//
// # A run
//
//	0            span                     at most 2 minutes     a moment
//	|-- faults ---|-- all faults end, until all is in sync --|-- conclusion
//
// A seed draws the cluster (2 to 4 members, contract, policy, distances, losses, drift
// of clocks, voters, clients) and a plan of faults, from sources of their own. Clients
// keep a few requests in flight: reads, writes and zeroes of 1 to 800 sectors, FUA,
// flushes. What is not answered is sent again under the same origin, to whoever is
// primary then, and given up after a while. The operator hands the volume over every
// few seconds.
//
// # Faults
//
//	what                     how
//	cut, one-way cut         Datagrams are lost; bytes of connections wait for the end of
//	                         the cut, or for their connection's. Then they come late.
//	isolation, partition     The same, between a node or the witness and all places or all
//	                         but a few.
//	slow link                Everything is later.
//	flapping link            Connections break; what was on its way is lost.
//	corruption               A bit of a connection's bytes is changed on the way.
//	slow commits             All of the group take long over their logs.
//	pause                    The process does nothing; its clock goes on. What came
//	                         meanwhile happens afterwards. This and the next two are for
//	                         the witness, too.
//	kill                     The process ends; the page cache stays. Of what its disk was
//	                         asked for some is done, to some sector.
//	power cut                What was not synced is there or not, sector by sector.
//	blackout                 That, for all nodes.
//	crash amid ...           A kill or power cut at one of the changes that the store makes
//	                         to its files.
//	clean stop               The store is closed in good order; then power may go, too.
//	stall                    The disk takes long.
//	full disk                ENOSPC, where a page is not there yet.
//	failed sync              The store is broken for ever; later it gets an empty disk.
//	new disk                 It has an empty one, with another ID.
//	forced failover          The operator names a primary, whatever is lost.
//	site loss                The primary is cut off, but for its clients and the group's
//	                         leader, and goes on alone; then the leader restarts, and when
//	                         there is another, the operator forces a failover.
//
// They come in groups, often at the same place, which may be the primary's or that of
// the group's leader, and some wait for the next change of the configuration, for the
// first acknowledgement of a new primary, or for the next leader: what breaks a
// protocol is the second fault amid the consequences of the first. A disk is
// taken away only while another copy in sync is sure to be whole: the loss of all copies
// is no failure of the protocol. Datagrams of clients and of the group
// are lost, doubled and overtaken all the time.
//
// # What is checked
//
// The history of each hot sector (64 of them, around the borders of regions) is
// checked with porcupine, against the promise of a mirrored device:
//
//   - A request of many sectors is one operation for each. A sector says which write
//     it is of, and a torn or misplaced one is found when it is read.
//   - A write without an answer took effect or did not. It is held by the reigns (a
//     primary's time from its promotion on) that were sent it and by nobody else. So
//     its window closes when a later reign acknowledges anything: what the new
//     primary's copy has then is the choice, and a delayed frame may not change it.
//     A refusal (ErrForgotten) closes it too.
//   - Of what a client left behind, the window closes when its next generation is
//     first acknowledged anything.
//   - Where no copy in sync is sure to have everything, since all of them lost power,
//     the history is cut: it goes on with any value that is not older than the
//     last acknowledged flush, FUA or (contract durable) write, and stays with that.
//   - After a failover that was forced on a copy out of sync it goes on with any value
//     at all that was ever written; sessions from before end there.
//   - Not knowing in time whether a history is right counts as wrong.
//
// And beside the history:
//
//   - Nothing that came to a primary after a later one acknowledged something is
//     acknowledged, and no read completes then.
//   - No node becomes primary while a lone primary holds a lease.
//   - A command comes to one thing, however often it is in the log, and no node's
//     proposal is one that the state machine refuses.
//   - What verification compares with writes held is equal, and who is in sync lacks
//     nothing.
//   - After the last fault all members are in sync within bounded virtual time, every
//     request has its end, and the copies are equal byte for byte.
//
// Whether these checks notice anything is checked as well: with the build tag sabotage
// one rule of the protocol after the other is broken, and each must be found out
// (package mirror/internal/sabotage):
//
//	go test -tags sabotage ./mirror/sim -run Mutations
//
// # What it does not show
//
// Data races, the real drivers, TCP, the kernel, hashicorp/raft itself, changes of the
// group's and the volume's members, and the bytes of package forward. Bits that rot are
// found by verification only, and so only one test has them. A voter's log survives
// everything. No operator forces a failover to a copy out of sync while two others in
// sync may go on together, cut off from the group: these acknowledge until they hear
// of it.
//
// # Cost
//
// About half a second of CPU for 10 virtual minutes, most of it the store's checksums,
// the checker's search and the scheduler's queue.
package sim
