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
// dies (PDEATHSIG). So after a crash, or kill -9, the kernel has removed all but
// the run's scratch directory, which GC removes: the directory names its owner,
// by process ID and start time.
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
// `go test ./wanem/sites -run Calibration -v` prints it.
package sites
