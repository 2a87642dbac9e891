package main

import (
	"fmt"
	"strings"

	"lockstep/cmd/lockstep/api"
)

// advice says what a person can do for a volume; "" where there is nothing, or where it
// mends itself.
func advice(v *api.VolumeStatus) string {
	switch s := v.Standing; {
	case s == nil:
		return adviceUnled(v)
	case !s.Serving || s.Failed != "":
		return ""
	case len(s.Replicas) == 0:
		return fmt.Sprintf("give another node a copy: lockstep volume replica add %s NODE", v.Name)
	default:
		return adviceAway(v)
	}
}

// adviceUnled is for a volume that nobody is known to lead.
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
	start := "start node " + v.Primary
	failover := func(to string) string { return fmt.Sprintf("lockstep failover %s --to %s", v.Name, to) }
	switch {
	case len(ready) > 0 && v.Policy.Failover == "manual":
		return fmt.Sprintf("%s; or let %s take over, which loses nothing: %s", start, ready[0], failover(ready[0]))
	case len(ready) > 0:
		return fmt.Sprintf("if %s does not take over within seconds, start the nodes that are down: it takes a majority of the voters", ready[0])
	case len(stale) > 0:
		return fmt.Sprintf("%s: the only copy in sync is there; if it is gone for good, this says what would be lost: %s", start, failover(stale[0]))
	}
	return start + ": the only copy is there"
}

// adviceAway is for copies that do not answer.
func adviceAway(v *api.VolumeStatus) string {
	var away []string
	for _, r := range v.Standing.Replicas {
		if (r.Standing == standingLost || r.Standing == standingAbsent) && r.Member < len(v.Replicas) {
			away = append(away, v.Replicas[r.Member].Node)
		}
	}
	if len(away) == 0 {
		return ""
	}
	text := fmt.Sprintf("start node %s: what it lacks is copied by itself", strings.Join(away, ", "))
	if !v.Standing.Ready && v.Policy.OnLoss == "suspend" {
		return text + fmt.Sprintf("; or let writes go on without it: lockstep volume policy %s --on-loss continue", v.Name)
	}
	return text + fmt.Sprintf("; if it is gone for good: lockstep volume replica replace %s %s --by NODE", v.Name, away[0])
}
