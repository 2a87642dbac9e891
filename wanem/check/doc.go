// Package check proves a link on this machine: it sets each thing that a link can
// do, reads back what the kernel holds, measures over the sites' wire what packets
// experience, and compares.
//
// # What is measured, and how
//
// A figure is a Row: what was asked for, what was read back, what was measured, and
// from where to where the measurement may lie.
//
//	round trip at each distance   median of ICMP echoes, as package sites measures it
//	one way, there and back       median of probes; one kernel, so one clock
//	jitter                        spread and shape of the probes' one-way delays
//	loss, alone and in bursts     probes that never came; how many in a row
//	reorder                       probes that skipped the delay
//	duplicate, corrupt            probes that came twice, or damaged or not at all
//	rate                          bits of a backlog by the time it took to arrive
//	limit                         how many of a burst were kept
//	lost beyond that              probes that nothing was asked to lose
//
// Probes are numbered UDP datagrams, each with the wall clock's time before it was
// sent and a CRC-32C over all of it; the receiving kernel stamps their arrival
// (SO_TIMESTAMPNS), so no process has to be woken in time. They have no UDP
// checksum: a damaged one arrives, unless the damage is in its headers, and is
// told by the CRC.
//
// # What is allowed
//
// A median delay may be off by Precision (20 us) and the round trip that this
// machine has at 0 km, which is measured first: what packets take without any link
// is as well as a delay can be kept here. Real CPUs have less than ten of it, emulated
// ones 40 to 90; with more than MostBaseline (250 us), or a p99 above
// MostBaselineTail (2 ms), nothing is proved.
//
// A share, a mean or a distance between distributions may be off by what chance
// does with that many probes, four standard errors: of 10,000 correct figures it
// condemns less than one. Losses in bursts are not independent; theirs is the error
// of a two-state Markov chain. The spread is the distance of the quartiles, since
// some probes that a busy machine held up for long would make any standard
// deviation.
//
// A rate may be off by 2 %, and nothing may be lost that was not asked for.
//
// Round trips are measured in turns of all distances, each after a calibration, since
// what else a machine does would else be at one distance only. On a machine that
// others keep busy delays fail all the same, and rightly: packets are late there. In
// a virtual machine whose clock counts instructions, nobody else exists:
// scripts/vm.sh run --clock instructions -- lockstep wan check.
//
// # What fails
//
// A figure that this machine was too busy to measure (a burst was not sent in time)
// is not proved, so it fails, with a word; a receive buffer that ran over is an error.
// What a backend can't do is skipped, with a word. A full run takes about a minute, a quick one a third of
// it; emulated CPUs take longer.
//
// # The datagram
//
//	offset  size  field, big endian
//	0       4     stream: a random number, so that late ones of another are told apart
//	4       4     number, from 0
//	8       8     sent, ns since 1970
//	16      4     CRC-32C (Castagnoli) of all the other bytes
//	20      -     filler, zero
package check
