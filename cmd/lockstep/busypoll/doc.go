// Package busypoll has connections that spin before they sleep.
//
// # Why
//
// Waking a sleeping thread on another CPU costs some 25 us, and a mirrored write
// at depth 1 has four such wake-ups on its path: more than all its work. A
// reader that keeps asking its socket for a while instead has the data at once.
//
// Go's own sockets can't do that well: the runtime's poller watches them all the
// time, so each arrival also wakes a thread that finds nothing left to do. A Conn
// here takes its socket away from the runtime and waits by itself: first by
// trying again and again, then in ppoll(2).
//
// # Cost
//
// While it spins, a Conn occupies a CPU, yielding it between tries to whatever
// else is runnable there. While it sleeps it occupies a thread. Spinning is
// bounded by a duration for each wait; a wait that was in vain makes the next
// ones sleep at once, twice as many each time, up to 64: over a distance, or
// when idle, the cost goes to nothing by itself.
//
// # What fails
//
// Nothing of its own: errors are the socket's. Close and deadlines wake a sleeper
// through an eventfd.
package busypoll
