package main

import (
	"fmt"
	"strings"

	"lockstep/cmd/lockstep/api"
)

// advice says what a person can do for a volume; "" where there is nothing, or where it
// mends itself. What could lose data it does not put into his mouth.
func advice(v *api.VolumeStatus) string {
	switch s := v.Standing; {
	case s == nil:
		return adviceUnled(v)
	case s.Failed != "":
		return ""
	case !s.Serving || !s.Ready:
		return adviceWaiting(v)
	case len(s.Replicas) == 0:
		return fmt.Sprintf("give another node a copy: lockstep volume replica add %s NODE", v.Name)
	default:
		return adviceAway(v)
	}
}

// adviceUnled is for a volume that nobody is known to lead. Its primary may run all the
// same: it is told of, and what it said is in the line of the volume.
func adviceUnled(v *api.VolumeStatus) string {
	var ready, stale []string // copies that could take over, without loss and with
	for _, r := range v.Replicas {
		switch {
		case r.Node == "" || r.Node == v.Primary:
		case r.InSync:
			ready = append(ready, r.Node)
		default:
			stale = append(stale, r.Node)
		}
	}
	text := fmt.Sprintf("see to node %s, and to the way to it", v.Primary)
	switch {
	case len(ready) > 0 && v.Policy.Failover == "manual":
		return fmt.Sprintf("%s; or let %s take over, which loses nothing: lockstep failover %s --to %s", text, ready[0], v.Name, ready[0])
	case len(ready) > 0:
		return fmt.Sprintf("wait for %s to take over; if it does not within seconds, see to the nodes that are down: it takes a majority of the voters", ready[0])
	case len(stale) > 0:
		return text + ": the only copy in sync is there; what could be done if that is gone for good, and what it costs: lockstep failover --help"
	}
	return text + ": the only copy is there"
}

// adviceWaiting is for requests that wait for copies in sync which are lost.
func adviceWaiting(v *api.VolumeStatus) string {
	away := with(v, func(standing string, inSync bool) bool { return standing == standingLost && inSync })
	switch {
	case len(away) == 0:
		return ""
	case !v.Standing.Serving:
		return seeTo(away) + ": nothing is served before every copy that was in sync has said what it has"
	case v.Policy.OnLoss == "suspend":
		return fmt.Sprintf("%s: writes wait for it; or let them go on with one copy less, until it is set back: lockstep volume policy %s --on-loss continue", seeTo(away), v.Name)
	}
	return "" // they go on without it in a moment
}

// adviceAway is for copies that do not answer, and that nothing waits for.
func adviceAway(v *api.VolumeStatus) string {
	away := with(v, func(standing string, _ bool) bool { return standing == standingAbsent || standing == standingLost })
	if len(away) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: what is missing there is copied by itself; a node that is gone for good is replaced: lockstep volume replica replace %s %s --by NODE", seeTo(away), v.Name, away[0])
}

// with are the nodes of replicas of which that is so.
func with(v *api.VolumeStatus, is func(standing string, inSync bool) bool) (nodes []string) {
	for _, r := range v.Standing.Replicas {
		if r.Member < len(v.Replicas) && is(r.Standing, r.InSync) {
			nodes = append(nodes, v.Replicas[r.Member].Node)
		}
	}
	return nodes
}

// seeTo does not say "start": a node may run and refuse, for the reason that is printed with it.
func seeTo(nodes []string) string { return "see to node " + strings.Join(nodes, " and ") }
