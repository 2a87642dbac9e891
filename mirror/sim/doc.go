// Package sim simulates whole clusters of lockstep from one seed, at virtual time, in
// one thread: the same seed gives the same run, byte for byte, so that a failure that was
// found once can be looked at as often as it takes. It is test support; what it runs is real:
//
//	mirror.Machine, mirror.Peer, mirror.Comparison   the primary
//	mirror.Follower, mirror.Applier                  a replica
//	mirror/wire                                      every frame goes through bytes
//	mirror/store on mirror/store/memfs               every byte is on a disk that loses
//	                                                 power
//
// Simulated are the network, the clocks, the configuration service, the operator and the
// clients; and the drivers are this package's own (node, session, lead, peer), so
// that a fault can come between any two things that a driver does.
//
// # A run
//
//	0            span                     at most 2 minutes     a moment
//	|-- faults ---|-- all faults end, until all is in sync --|-- conclusion
//
// A seed draws the cluster (2 to 4 members, contract, policy, distances, losses, drift
// of clocks, clients) and a plan of faults, from sources of their own. Clients keep a
// few requests in flight: reads, writes and zeroes of 1 to 800 sectors, FUA, flushes.
// What they do not hear of they send again under the same origin, to whoever is primary
// then, and give up after a while.
//
// # Faults
//
//	what                     how
//	cut, one-way cut         Datagrams are lost; bytes of connections wait for the end of
//	                         the cut, or for their connection's. Then they come late.
//	isolation, partition     The same, between a node and all places or all but a few.
//	slow link                Everything is later.
//	flapping link            Connections break; what was on its way is lost.
//	corruption               A bit of a connection's bytes is changed on the way.
//	slow commits             The configuration service takes long over what goes through
//	                         its log: to do it, or to say so.
//	pause                    The process does nothing; its clock goes on. What came
//	                         meanwhile happens afterwards.
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
//
// They come in groups, often at the same place, and some wait for the next change of the
// configuration, or for the first acknowledgement of a new primary: what breaks a
// protocol is the second fault amid the consequences of the first. A disk is
// taken away only while another copy in sync is sure to be whole: the loss of all copies
// is no failure of the protocol. Datagrams of clients and of the configuration service
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
//   - Where no copy in sync is sure to have everything, since all of them lost power,
//     the history is cut: it goes on with any value that is not older than the
//     last acknowledged flush, FUA or (contract durable) write, and stays with that.
//   - Not knowing in time whether a history is right counts as wrong.
//
// And beside the history:
//
//   - Nothing that came to a primary after a later one acknowledged something is
//     acknowledged, and no read completes then.
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
// Data races, the real drivers, TCP, the kernel, and raft, which the configuration
// service stands for as one thing that never fails. Bits that rot are found by
// verification only, and so only one test has them.
//
// # Cost
//
// About half a second of CPU for 10 virtual minutes, most of it the store's checksums,
// the checker's search and the scheduler's queue.
package sim
