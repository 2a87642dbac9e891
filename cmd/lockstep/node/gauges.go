package node

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/host"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lockstep_"+name, help, labels, nil)
}

var (
	descBuild    = describe("build_info", "1, with the version.", "version")
	descTerm     = describe("raft_term", "Raft's term at this node.")
	descLeading  = describe("raft_leader", "1 if this node leads the raft group.")
	descHas      = describe("raft_has_leader", "1 if this node knows who leads the raft group.")
	descCommit   = describe("raft_commit_index", "Index of the last decided entry that this node knows.")
	descContact  = describe("raft_contact_seconds", "Since the raft leader was heard; -1: never.")
	descSize     = describe("volume_size_bytes", "Size of a volume.", "volume")
	descEpoch    = describe("volume_epoch", "Number of the configuration in force.", "volume")
	descIncarn   = describe("volume_incarnation", "How often acknowledged writes may have been given up.", "volume")
	descInSync   = describe("volume_in_sync_replicas", "Replicas in the in-sync set, the primary's included.", "volume")
	descReplicas = describe("volume_replicas", "Replicas that the volume is to have.", "volume")
	descRole     = describe("volume_role", "1 for what this node is to a volume.", "volume", "role")
	descStopped  = describe("volume_suspended", "1 if writes wait, at the node that leads.", "volume")
	descWaited   = describe("volume_suspended_seconds_total", "How long writes could not complete, since this node leads; a promotion counts.", "volume")
	descFlight   = describe("volume_writes_in_flight", "Writes above the watermark, at the node that leads.", "volume")
	descRInSync  = describe("replica_in_sync", "1 if a replica is in the in-sync set.", "volume", "node")
	descLeft     = describe("replica_left_bytes", "What a replica lacks or may lack, at the node that leads.", "volume", "node")
	descRTT      = describe("replica_rtt_seconds", "Round trip of the last heartbeat, at the node that leads.", "volume", "node")
	descCopied   = describe("replica_copied_bytes_total", "Copied to a replica by resync, since this node leads.", "volume", "node")
	descCompared = describe("replica_compared_bytes_total", "Compared with a replica by resync, since this node leads.", "volume", "node")
	descRate     = describe("replica_resync_bytes_per_second", "How fast a replica is brought up to date.", "volume", "node")
	descETA      = describe("replica_resync_eta_seconds", "Until nothing is left; -1: not known.", "volume", "node")
)

// gauges are what is looked up when Prometheus asks.
type gauges struct{ n *node }

// Describe implements prometheus.Collector: what there is depends on the volumes.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	set(descBuild, 1, g.n.conf.Build)
	group := g.n.group.Status()
	set(descTerm, float64(group.Term))
	set(descCommit, float64(group.Commit))
	set(descLeading, truth(group.Leader == g.n.conf.Name))
	set(descHas, truth(group.Leader != ""))
	set(descContact, max(-1, group.Contact.Seconds()))
	for _, seat := range g.n.host.Seats() {
		if v := seat.Record(); v != nil {
			collectVolume(set, seat, v)
			if s, ok := seat.Status(); ok {
				set(descStopped, truth(suspended(&s) != ""), v.Name)
				count(descWaited, s.Suspended, v.Name)
				set(descFlight, float64(s.InFlight), v.Name)
				for _, r := range s.Replicas {
					collectReplica(set, count, v, r)
				}
			}
		}
	}
}

type report func(d *prometheus.Desc, value float64, labels ...string)

func collectVolume(set report, seat *host.Seat, v *control.Volume) {
	set(descSize, float64(v.Size), v.Name)
	set(descEpoch, float64(v.Epoch), v.Name)
	set(descIncarn, float64(v.Incarnation), v.Name)
	set(descInSync, float64(len(v.InSync())), v.Name)
	role, replicas := seat.Role(), 0
	for _, is := range []host.Role{host.Bystander, host.Following, host.Leading, host.Stopping} {
		set(descRole, truth(role == is), v.Name, string(is))
	}
	for _, r := range v.Replicas {
		if r.Node != "" {
			replicas++
			set(descRInSync, truth(r.InSync), v.Name, r.Node)
		}
	}
	set(descReplicas, float64(replicas), v.Name)
}

func collectReplica(set, count report, v *control.Volume, r mirror.ReplicaStatus) {
	node := nodeOf(v, r.Member)
	set(descLeft, float64(r.Left), v.Name, node)
	set(descRTT, r.RTT/1e6, v.Name, node)
	set(descRate, float64(r.Rate), v.Name, node)
	set(descETA, r.ETA, v.Name, node)
	count(descCopied, float64(r.Copied), v.Name, node)
	count(descCompared, float64(r.Compared), v.Name, node)
}

// nodeOf is the node of a member, by its number.
func nodeOf(v *control.Volume, member int) string {
	if member < len(v.Replicas) && v.Replicas[member].Node != "" {
		return v.Replicas[member].Node
	}
	return "slot " + strconv.Itoa(member)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
