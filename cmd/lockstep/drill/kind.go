package drill

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is a way to break a cluster.
type Kind string

// The kinds. "Primary" is the node that leads when the round begins, "replica" the
// other one with data.
const (
	Kill           Kind = "kill"            // kill -9 of the primary's node, started again later
	KillReplica    Kind = "kill-replica"    // the same of the replica's
	Stop           Kind = "stop"            // SIGSTOP of the primary's node, SIGCONT later
	StopReplica    Kind = "stop-replica"    // the same of the replica's
	CutAB          Kind = "cut-ab"          // nothing passes between the sites with data
	CutABOneway    Kind = "cut-ab-oneway"   // nothing arrives that the primary's site sends the replica's
	CutBAOneway    Kind = "cut-ba-oneway"   // the other direction
	CutAW          Kind = "cut-aw"          // nothing passes between the primary's site and the witness
	CutBW          Kind = "cut-bw"          // nor between the replica's and the witness
	IsolatePrimary Kind = "isolate-primary" // nothing passes to or from the primary's site
	Slow           Kind = "slow"            // the path between the sites with data is 20 times as long
	DiskStall      Kind = "disk-stall"      // whatever the primary's node writes to its disk waits, its part of raft's log too
	WitnessKill    Kind = "witness-kill"    // kill -9 of the witness, started again later
	Handover       Kind = "handover"        // not broken at all: a planned move of the primary
)

// Kinds are all of them, in the order in which they are drilled.
var Kinds = []Kind{Kill, KillReplica, Stop, StopReplica, CutAB, CutABOneway, CutBAOneway, CutAW, CutBW,
	IsolatePrimary, Slow, DiskStall, WitnessKill, Handover}

// takesASite says whether the volume can go on at one of its sites only.
func (k Kind) takesASite() bool {
	return slices.Contains([]Kind{Kill, KillReplica, Stop, StopReplica, CutAB, CutABOneway, CutBAOneway, IsolatePrimary, DiskStall}, k)
}

// ParseKinds reads a list with commas; "all" or nothing is [Kinds].
func ParseKinds(list string) ([]Kind, error) {
	if list == "" || list == "all" {
		return Kinds, nil
	}
	var kinds []Kind
	for word := range strings.SplitSeq(list, ",") {
		k := Kind(strings.TrimSpace(word))
		if !slices.Contains(Kinds, k) {
			return nil, fmt.Errorf("kind %q: use some of %v, with commas", word, Kinds)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}
