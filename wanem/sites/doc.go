// Package sites makes two sites and the wire between them out of network
// namespaces, sets the link's distance, and measures what was achieved.
//
// # Topology
//
//	   site a              wire                site b
//	10.254.0.1 (lo)     10.254.1.1 (lo)     10.254.0.2 (lo)
//	    up -- veth --- a  forwards  b --- veth -- up
//	   far ---------- relay (tun) ------------ far
//
// Each site has one address, on its loopback interface, whichever way the other
// is reached: a route points to the veth pairs (0 km, or netem on the wire's way
// out to each site) or to the TUN device whose relay is the wire. So half the
// round trip is kept per direction, in the middle, and never on loopback.
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
// set by half the error in each direction, twice, and keeps the correction for
// the next link. What remains is reported by MeasureRTT, not hidden.
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
