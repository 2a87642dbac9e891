package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

// clusterHealthy says whether every volume takes writes and is as redundant as it
// should be, and the cluster could lose somebody.
func clusterHealthy(s *api.Status) bool {
	for _, v := range s.Volumes {
		if v.Suspended != "" || v.Standing == nil || !v.Standing.Ready {
			return false
		}
		if _, out := copies(v.Volume); len(out) > 0 {
			return false
		}
		for _, r := range v.Standing.Replicas {
			if r.Standing != standingInSync {
				return false
			}
		}
	}
	return s.Group.Leader != ""
}

// printCluster is for people.
func printCluster(out io.Writer, s *api.Status) error {
	leader := "leader " + s.Group.Leader
	if s.Group.Leader == "" {
		leader = "NO LEADER: nobody takes over, and nothing can be changed (see lockstep cluster list)"
	}
	fmt.Fprintf(out, "%s, asked %s; term %d, %s\n", countText(len(s.Nodes), "node"), s.Node, s.Group.Term, leader)
	if len(s.Volumes) == 0 {
		_, err := fmt.Fprintln(out, "no volumes: make one with lockstep volume create")
		return err
	}
	for i := range s.Volumes {
		if err := printVolume(out, &s.Volumes[i]); err != nil {
			return err
		}
	}
	return nil
}

func printVolume(out io.Writer, v *api.VolumeStatus) error {
	fmt.Fprintf(out, "\nvolume %s, %s, primary %s, epoch %d: %s\n", v.Name, sizeText(v.Size), orDash(v.Primary), v.Epoch, volumeText(v))
	fmt.Fprint(out, policyText(v.Volume))
	if v.Standing != nil {
		fmt.Fprintf(out, "; %d in flight, watermark %d", v.Standing.InFlight, v.Standing.Watermark)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTANDING\tLEFT\tRATE\tETA\tRTT\tCOPIED\tCOMPARED")
	for i, r := range v.Replicas {
		if r.Node == "" {
			continue
		}
		state, known := memberOf(v.Standing, i)
		switch {
		case known:
			printReplica(w, r.Node, state)
		case r.Node == v.Primary:
			fmt.Fprintf(w, "%s\tprimary\t-\t-\t-\t-\t-\t-\n", r.Node)
		case r.InSync:
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\t-\n", r.Node, standingInSync)
		default:
			fmt.Fprintf(w, "%s\tnot in sync\t-\t-\t-\t-\t-\t-\n", r.Node)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if v.Standing != nil {
		for _, r := range v.Standing.Replicas {
			if r.Err != "" && r.Member < len(v.Replicas) {
				fmt.Fprintf(out, "%s: %s\n", v.Replicas[r.Member].Node, r.Err)
			}
		}
	}
	if next := advice(v); next != "" {
		fmt.Fprintf(out, "next: %s\n", next)
	}
	return nil
}

// printReplica prints a row of a replica's.
func printReplica(w io.Writer, name string, r mirror.ReplicaStatus) {
	rtt := "-"
	if r.RTT > 0 {
		rtt = delayText(r.RTT)
	}
	left, rate, eta := resyncText(r)
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
		name, r.Standing, left, rate, eta, rtt, sizeText(r.Copied), sizeText(r.Compared))
}

func memberOf(s *mirror.Status, member int) (mirror.ReplicaStatus, bool) {
	if s != nil {
		for _, r := range s.Replicas {
			if r.Member == member {
				return r, true
			}
		}
	}
	return mirror.ReplicaStatus{}, false
}

func volumeText(v *api.VolumeStatus) string {
	_, out := copies(v.Volume)
	switch {
	case v.Standing == nil:
		return "NOT SERVED: " + v.Error
	case v.Suspended != "":
		return "SUSPENDED: " + v.Suspended
	case len(v.Standing.Replicas) == 0:
		return "serving, NOT MIRRORED"
	case len(out) > 0:
		return "serving, degraded"
	}
	return "serving, every copy in sync"
}

func countText(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
