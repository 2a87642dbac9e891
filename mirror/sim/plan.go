package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// faultKind is what goes wrong.
type faultKind int

const (
	faultCut       faultKind = iota // nothing arrives between two places
	faultOneWay                     // nothing arrives from one place at another
	faultIsolate                    // a node reaches nobody and is reached by nobody
	faultPartition                  // a node reaches, and is reached by, clients and one other place only
	faultSlow                       // everything between two places takes longer
	faultCorrupt                    // a byte changes on the way
	faultFlap                       // connections between two places break again and again
	faultCommit                     // logs of the group take long
	faultPause                      // a node does nothing
	faultKill                       // its process ends
	faultPower                      // it loses power
	faultBlackout                   // all nodes lose power
	faultMidway                     // it loses power, or its process ends, amid what its disk is doing
	faultStop                       // its process is stopped in good order, and then it may lose power
	faultStall                      // syncs and writes take long
	faultFull                       // its disk is full
	faultSync                       // a sync fails: the disk is replaced
	faultDisk                       // its disk is replaced by an empty one
	faultForce                      // an operator makes it the primary, whatever is lost
	faultSite                       // a primary is cut off and alone, the group's leader is lost, and an operator names another primary
	faultKinds
)

var faultNames = [...]string{
	faultCut: "cut", faultOneWay: "one-way cut", faultIsolate: "isolation", faultPartition: "partition", faultSlow: "slow link", faultCorrupt: "corruption", faultFlap: "flapping link", faultCommit: "slow commits",
	faultPause: "pause", faultKill: "kill", faultPower: "power cut", faultBlackout: "blackout", faultMidway: "crash amid disk operation", faultStop: "clean stop", faultStall: "stall",
	faultFull: "full disk", faultSync: "failed sync", faultDisk: "new disk", faultForce: "forced failover", faultSite: "site loss",
}

func (k faultKind) String() string { return faultNames[k] }

// weights say how often each kind is drawn.
type weights [faultKinds]int

// usual are the weights of a run that is after nothing in particular.
var usual = weights{
	faultCut: 8, faultOneWay: 6, faultIsolate: 6, faultPartition: 6, faultSlow: 5, faultCorrupt: 5, faultFlap: 6, faultCommit: 6, faultPause: 9, faultKill: 10, faultPower: 9,
	faultBlackout: 2, faultMidway: 9, faultStop: 4, faultStall: 6, faultFull: 4, faultSync: 4, faultDisk: 4, faultForce: 3, faultSite: 4,
}

// Places that are known when the fault begins.
const (
	thePrimary place = -1 // of the volume
	theLeader  place = -2 // of the group
)

// ambush is what a fault waits for.
type ambush int

const (
	noAmbush   ambush = iota
	ambushConf        // the next change of the configuration
	ambushAck         // the first acknowledgement of a new primary
	ambushLead        // the next leader of the group
)

// fault is one thing that goes wrong for a while.
type fault struct {
	kind      faultKind
	at, lasts time.Duration
	a, b      place // b: of what has two
	ambush    ambush
}

func (f *fault) String() string {
	who := fmt.Sprint("node ", int(f.a))
	switch f.a {
	case thePrimary:
		who = "the primary"
	case theLeader:
		who = "the leader"
	}
	if f.kind <= faultFlap && f.kind != faultIsolate {
		who += fmt.Sprint(", place ", int(f.b))
	}
	when := "at"
	switch f.ambush {
	case ambushConf:
		when = "with the next change of the configuration after"
	case ambushLead:
		when = "when another leads the group, after"
	case ambushAck:
		when = "when a new primary first acknowledges, after"
	}
	return fmt.Sprintf("%s %v for %v: %v, %s", when, f.at, f.lasts, f.kind, who)
}

// Faults come in groups: the first after a calm, the others while its
// consequences are being dealt with.
const (
	meanCalm  = 10 * time.Second
	lastCalm  = 5 * time.Second // before the end of the run
	firstCalm = 3 * time.Second
)

// drawPlan draws what goes wrong in a run.
func drawPlan(r *rand.Rand, span time.Duration, members int, w *weights) (plan []fault) {
	for at := firstCalm; ; at += time.Duration(r.ExpFloat64() * float64(meanCalm)) {
		for group := at; group < span-lastCalm; group += time.Duration(r.ExpFloat64() * float64(700*time.Millisecond)) {
			f := drawFault(r, members, w)
			if n := len(plan); group > at && r.IntN(2) == 0 { // the same place again
				f.a, f.b = plan[n-1].a, plan[n-1].b
			}
			f.at = group
			plan = append(plan, f)
			if r.IntN(5) < 3 {
				break
			}
		}
		if at >= span-lastCalm {
			return plan
		}
	}
}

func drawFault(r *rand.Rand, members int, w *weights) fault {
	f := fault{kind: w.draw(r), a: place(r.IntN(members))}
	f.b = place((int(f.a) + 1 + r.IntN(members)) % (members + 1)) // another node, or the witness
	switch n := r.IntN(24); {
	case n < 8:
		f.a = thePrimary
	case n < 12:
		f.a = theLeader
	case n < 14:
		f.a = place(members) // the witness
	}
	if r.IntN(5) == 0 {
		f.b = place(members)
	}
	if f.ambush = ambush(max(0, r.IntN(12)-8)); f.ambush != noAmbush && r.IntN(5) == 0 {
		f.kind = faultBlackout
	}
	f.lasts = time.Duration(float64(100*time.Millisecond) * float64(uint64(1)<<r.IntN(7)) * (1 + r.Float64()))
	return f
}

func (w *weights) draw(r *rand.Rand) faultKind {
	all := 0
	for _, often := range w {
		all += often
	}
	n := r.IntN(all)
	for kind, often := range w {
		if n -= often; n < 0 {
			return faultKind(kind)
		}
	}
	panic("unreachable: weights are positive")
}
