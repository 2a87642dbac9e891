// Package tun makes a link between two network namespaces where the kernel has
// no netem: a TUN device in each, and between them a relay in this process that
// holds every packet back until its time.
//
// # One direction
//
//	device A --read--> [ due times, in order ] --write--> device B
//
// One goroutine, locked to its thread, does all of one direction: it reads what
// there is, stamps each packet with the time at which it is due, and writes those
// whose time has come. There is no hand-over between threads to wait for. A
// packet's due time is
//
//	max(arrival, end of the packet before / rate) + delay + jitter,
//
// never before that of the packet before it, so nothing overtakes.
//
// # Cost and accuracy
//
// Packets keep their virtio header (IFF_VNET_HDR with TSO on), so TCP's 64 KiB
// super-packets cross in one read and one write. To be on time the thread sleeps
// until Spin before the next due time (ppoll, timer slack 1 ns; a wake-up takes
// some 50 us) and spins for the rest, which is what one busy direction costs in
// CPU: at most Spin a packet. What is left over is nearly constant: package sites
// measures and subtracts it.
//
// At 100 km, with one probe at a time, the whole process uses 0.3 to 0.4 ms of CPU
// a round trip, at most 0.12 of it spinning and the rest for wake-ups (go test
// ./wanem/sites -run Calibration -v). A higher priority makes probes steadier and
// a load slower: with nice -19 on 2 CPUs, 64 connections that exchanged 4 KiB did
// 40 % fewer of them, because the spinning was at their expense. So there is none.
//
// # What fails and how
//
// A queue takes at most MaxQueue bytes of memory; what comes on top is dropped and counted,
// as is what the other device refuses. Loss asked for is counted apart. A delay
// below MinDelay can't be kept: package sites refuses it, and for no distance at
// all uses no relay.
package tun
