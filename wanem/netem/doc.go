// Package netem makes the Linux kernel keep a link's delay: it programmes one
// direction of a wanem.Link as a netem queueing discipline (qdisc) on an
// interface, reads it back, and reads what it dropped.
//
// Every function acts in the network namespace of the calling thread: lock the
// goroutine to its thread and enter the namespace first. Functions may be
// called concurrently for different interfaces, and need CAP_NET_ADMIN over
// the namespace, except List and Show.
//
// # What netem does, and what follows
//
//   - It acts on packets that leave an interface, never on those that arrive:
//     a link takes two, best on the two legs of a namespace in the middle.
//   - It draws loss once per buffer that the stack hands down, and that may be a
//     64 KiB super-packet. Turn TSO, GSO and GRO off for loss or an exact rate;
//     for delay alone leave them on.
//   - It overtakes: with jitter a packet may pass an earlier one, which TCP
//     takes for loss. A rate keeps the order, so ForLink sets one of 1 Tbit/s
//     where there is jitter but no rate.
//   - Its jitter is the half-width of a uniform distribution: ForLink sends
//     sqrt(3) times the standard deviation that a Link speaks of. The kernel draws
//     32 bits and takes the remainder by twice the half-width in ns, which is uneven
//     where that is not small beside 4.3 s: of +-200 ms the median is 5 ms early. At
//     2 ms it is less than 1 us.
//   - It reorders by sending a packet at once while others wait, so only where
//     there is a delay, and only if the next packet comes before the delay is over.
//   - It flips a bit of whatever a packet begins with at the interface: on a veth
//     that is the Ethernet header, whose damage no checksum notices.
//   - Its correlations are left alone: correlated draws have another mean than was
//     asked for. Bursts (Gilbert-Elliott) say how losses come together.
//   - Its limit counts the packets in flight too, and is 1000 unless set. Apply
//     sizes it from rate and delay (Config.Limit); a drop on a link without
//     loss means that a measurement is void.
//
// # States of an interface
//
//	default --Apply--> ours --Apply--> ours --Clear--> default
//	foreign --Apply--> error (ErrForeign), until Remove makes it default
//
// Ours is a root qdisc with handle 10c5:. Apply deletes it and adds another
// instead of changing it, since the kernel leaves attributes that a change does
// not mention as they were. Packets queued in the old one are lost; for some
// microseconds there is no delay. Apply costs four netlink exchanges, well
// below a millisecond. If what the kernel reads back is not what was asked,
// Apply removes the qdisc and says what differs.
//
// # The message
//
// RTM_NEWQDISC with a tcmsg (interface, handle 10c5:0, parent root), then the
// attributes TCA_KIND "netem" and TCA_OPTIONS. All integers have the byte order
// of the machine, attributes are padded to 4 bytes. TCA_OPTIONS holds struct
// tc_netem_qopt
//
//	offset  size  field
//	0       4     latency in ticks of 64 ns; 0, since LATENCY64 says it in ns
//	4       4     limit in packets
//	8       4     loss, probability x (2^32 - 1)
//	12      4     gap in packets; 0 without reorder, else at least 1
//	16      4     duplicate, probability x (2^32 - 1)
//	20      4     jitter in ticks of 64 ns; 0, since JITTER64 says it in ns
//
// and after it these attributes, each absent where it would be zero:
//
//	type  name       value
//	3     REORDER    u32 probability x (2^32 - 1), u32 correlation (0)
//	4     CORRUPT    the same
//	5     LOSS       nested: 2 GE: u32 p, r, h, k1 (see GilbertElliott)
//	8     RATE64     u64 bytes a second, if they do not fit into 32 bits
//	6     RATE       u32 bytes a second (all ones beside RATE64), s32 packet
//	                 overhead, u32 cell size, s32 cell overhead (all 0)
//	10    LATENCY64  s64 ns
//	11    JITTER64   s64 ns
//	14    PRNG_SEED  u64
//
// LATENCY64 and JITTER64 need Linux 4.15, PRNG_SEED 6.6. Older kernels ignore
// them, which the read-back notices. Sending nanoseconds alone also makes the
// result independent of /proc/net/psched, without which ticks are unknown.
package netem
