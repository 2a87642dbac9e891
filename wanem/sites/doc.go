// Package sites makes two to five sites and the paths between them out of network
// namespaces, sets each path's distance, cuts and slows it, and measures what was
// achieved.
//
// # Topology
//
// Each site and each path is a namespace; of every pair of sites:
//
//	   site a                wire a-b              site b
//	10.254.0.1 (lo)       10.254.1.1 (lo)       10.254.0.2 (lo)
//	  up-b -- veth --- to-a  forwards  to-b --- veth -- up-a
//	 far-b ------------ relay (tun) ------------------ far-a
//
// Each site has one address, on its loopback interface, whichever way the others
// are reached: a route for each other site points to the veth pairs (0 km, or
// netem on the wire's way out to each site) or to the TUN device whose relay is
// the wire. So half the round trip is kept per direction, in the middle, and never
// on loopback. No site forwards: two sites whose path is cut do not reach each
// other by way of a third.
//
// Not every program can be started in a namespace: the sockets of a mirror inside the
// kernel are in the first one. For these there is a Loop.
//
// # Faults
//
// Each direction of each path can be cut by itself (Cut), silently, as a broken
// fibre is: the relay loses everything, and the wire does not forward what comes
// from there. Slow lengthens a path at once, without a calibration, which under
// load would measure the load. SetLink mends both. Impair does to one direction
// whatever netem can: bursts of losses, reordering, duplicates, damage. The ends of a
// veth pair are told each other's hardware address, so no ARP can be late or lost.
//
// # Nothing is left behind
//
// The namespaces have no name: they exist while a process or a descriptor of
// this process is in them. Children are killed by the kernel when this process
// dies (PDEATHSIG). So after a crash, or kill -9, only two things can remain, and
// GC removes both: the run's scratch directory, which names its owner by process
// ID and start time, and processes that a child had started itself, which carry
// the directory's name in their environment. Open calls GC.
//
// # Privileges
//
// Root, or any user where the kernel allows user namespaces: Enter starts the
// program anew as root of one.
//
// # Calibration
//
// A packet's own way through namespaces, and a relay's wake-ups, take time that is
// not distance. SetLink measures the round trip (ICMP echo, answered by the far
// kernel, timed by the kernel's receive time stamp) and corrects the delay that it
// set by half the error in each direction: by the median of what the last nine
// rounds of probes for this link wanted, two or three of which are new, so that a
// moment in which the machine was busy does not decide. A new link begins with the
// correction of the one before. What remains is reported by MeasureRTT, not hidden.
//
// `go test ./wanem/sites -run Calibration -v` prints what was corrected and what
// remains. With the relay, on a virtual machine with 2 CPUs that other programs
// kept busy, in 8 runs: 40 to 160 us of a round trip were corrected, and of the
// median there remained up to 42 us at 100 km (979 us) and up to 85 us at 500 km
// and beyond. Load that comes or goes after the calibration moves the wake-ups and
// so the median, once by 119 us at 50 km. So measure before and after each point.
//
// # Loss and rate
//
// A link with loss or a rate takes TCP's super-packets apart before the wire: a
// loss is then of one packet of at most 1500 bytes, and a rate spaces them.
package sites
