package control

import (
	"fmt"
	"maps"
	"slices"
)

// mayHold says why node cannot get a replica of v, or "".
func (t transition) mayHold(v *Volume, node string) (refused string) {
	n, known := t.Nodes[node]
	switch {
	case !known:
		return fmt.Sprintf("there is no node %q", node)
	case n.Witness:
		return fmt.Sprintf("node %q is a witness, which holds no data", node)
	case v.Slot(node) >= 0:
		return fmt.Sprintf("node %q has a replica of volume %q", node, v.Name)
	}
	return ""
}

// replica adds, removes or replaces one. One that is in sync is left out with that: the
// primary waits for it until it hears so, and nobody else counts on it. The primary
// has to hand over first.
func (t transition) replica(v *Volume) (refused string) {
	if t.c.Kind == kindAdd {
		if refused := t.mayHold(v, t.c.Node); refused != "" {
			return refused
		}
		slot := slices.IndexFunc(v.Replicas, func(r Replica) bool { return r.Node == "" })
		if slot < 0 && len(v.Replicas) == MaxReplicas {
			return fmt.Sprintf("volume %q has %d replicas, the most there can be", v.Name, MaxReplicas)
		}
		if slot < 0 {
			v.Replicas, slot = append(v.Replicas, Replica{}), len(v.Replicas)
		}
		v.Replicas[slot] = Replica{Node: t.c.Node}
		t.event(fmt.Sprintf("%s gets a replica, in slot %d", t.c.Node, slot))
		return ""
	}
	slot := v.Slot(t.c.Node)
	switch {
	case slot < 0:
		return fmt.Sprintf("%q has no replica of volume %q", t.c.Node, v.Name)
	case t.c.Node == v.Primary:
		return fmt.Sprintf("%q is the primary of volume %q: hand it over first", t.c.Node, v.Name)
	case t.c.Kind == kindRemove:
		v.Replicas[slot] = Replica{}
		t.event(fmt.Sprintf("the replica of %s is removed, slot %d is free", t.c.Node, slot))
		return ""
	}
	v.Replicas[slot] = Replica{}
	if refused := t.mayHold(v, t.c.New); refused != "" {
		return refused
	}
	v.Replicas[slot] = Replica{Node: t.c.New}
	t.event(fmt.Sprintf("the replica of %s is replaced by an empty one of %s", t.c.Node, t.c.New))
	return ""
}

func (t transition) node() Result {
	n, known := t.Nodes[t.c.Node]
	switch t.c.Kind {
	case kindFound:
		if len(t.Nodes) > 0 {
			return Result{}
		}
		maps.Copy(t.Nodes, t.c.Nodes)
		t.event("the cluster begins, with " + fmt.Sprint(t.voters()))
		return Result{Won: true}
	case kindNode:
		return t.welcome(n, known)
	}
	if !known {
		return refuse("there is no node %q", t.c.Node)
	}
	last := n.Voter && len(t.voters()) == 1
	switch t.c.Kind {
	case kindNodeGone:
		if volume := t.inSyncOn(t.c.Node); volume != "" {
			return refuse("node %q has a replica of volume %q that is in sync: hand it over, or let the primary leave it out, first", t.c.Node, volume)
		}
		if last {
			return refuse("%s", lastVoter(t.c.Node))
		}
		delete(t.Nodes, t.c.Node)
		t.event("node " + t.c.Node + " is removed")
	case kindNonvoter:
		if last {
			return refuse("%s", lastVoter(t.c.Node))
		}
		n.Voter = false
		t.Nodes[t.c.Node] = n
		t.event("node " + t.c.Node + " votes no more")
	case kindVoter:
		n.Voter = true
		t.Nodes[t.c.Node] = n
		t.event("node " + t.c.Node + " becomes a voter")
	}
	return Result{Won: true}
}

// welcome adds a node, or notes what changed about one.
func (t transition) welcome(n Node, known bool) Result {
	info := *t.c.Info
	info.Voter = n.Voter
	switch {
	case t.c.Node == "" || len(t.c.Node) > 255:
		return refuse("a node's name has 1 to 255 bytes")
	case t.c.Node == Operator:
		return refuse("no node can be called %q", Operator)
	case known && n.Voter && n.ID != info.ID:
		return refuse("%s", forgot(t.c.Node))
	case known && n == info:
		return Result{Won: true}
	case known:
		t.event(fmt.Sprintf("node %s is at %s", t.c.Node, info.Addr))
	default:
		t.event(fmt.Sprintf("node %s joins, at %s", t.c.Node, info.Addr))
	}
	t.Nodes[t.c.Node] = info
	return Result{Won: true}
}

// forgot tells a voter with an empty directory what to do.
func forgot(name string) string {
	return fmt.Sprintf("node %q is a voter of this cluster, but its directory is new: it has forgotten how it voted. "+
		"Remove it (lockstep cluster remove %s) and start it again, then promote it", name, name)
}

// lastVoter tells why a node has to stay.
func lastVoter(name string) string {
	return fmt.Sprintf("node %q is the last voter, without which there is no majority: promote another first", name)
}

// inSyncOn returns a volume of which node has a replica in sync, or "".
func (s *State) inSyncOn(node string) string {
	for _, name := range slices.Sorted(maps.Keys(s.Volumes)) {
		v := s.Volumes[name]
		if slot := v.Slot(node); slot >= 0 && v.Replicas[slot].InSync {
			return name
		}
	}
	return ""
}
