package sim

import (
	"fmt"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/wire"
)

const volumeName = "sim"

// names of the nodes, in the group's records.
var names = [...]string{"a", "b", "c", "d", "e", "f"}

func name(p place) string { return names[p] }

func (n *node) name() string { return name(n.at) }

// beginning is the state of a group that has nodes and a volume, and nothing more.
func beginning(members int) *control.State {
	s := control.NewState()
	nodes := names[:members]
	for _, name := range nodes {
		s, _ = s.Apply(control.AddNode(name, control.Node{Addr: name}))
	}
	s, r := s.Apply(control.CreateVolume(volumeName, control.ID{'v', 15: 1}, volumeSize, control.Policy{}, nodes...))
	if !r.Won {
		panic(fmt.Sprint("a volume cannot be created: ", r.Refused))
	}
	return s
}

func memberOf(v *control.Volume, node string) mirror.ReplicaID {
	if slot := v.Slot(node); slot >= 0 {
		return mirror.ReplicaID(slot)
	}
	return mirror.NoReplica
}

// recordOf is what v says of the members.
func recordOf(v *control.Volume) mirror.Record {
	r := mirror.Record{By: memberOf(v, v.By)}
	r.Epoch, r.Primary = v.Epoch, memberOf(v, v.Primary)
	for i, replica := range v.Replicas {
		if replica.InSync {
			r.InSync = r.InSync.With(mirror.ReplicaID(i))
		}
		r.Stores[i] = wire.ID(replica.Store)
	}
	return r
}

// conf is the configuration in force, whoever knows.
func (c *cluster) conf() mirror.Configuration { return recordOf(c.group.latest.volume()).Configuration }

// known is what this node knows of the volume.
func (n *node) known() *control.Volume { return n.voter.applied.volume() }

// sender numbers commands, one at a time, so that the group can tell a repetition.
type sender struct {
	client string
	seq    uint64
}

func (n *node) sender() *sender {
	if last := len(n.senders) - 1; last >= 0 {
		s := n.senders[last]
		n.senders = n.senders[:last]
		return s
	}
	return &sender{client: fmt.Sprint(n.name(), n.c.unique())}
}

// do has the group do a command once, and gives what it came to to done. It tries
// until that is known.
func (n *node) do(c control.Command, done func(control.Result)) {
	s := n.sender()
	s.seq++
	c.Client, c.Seq = s.client, s.seq
	answered, attempts := false, 0
	var try func()
	try = func() {
		if answered {
			return
		}
		n.proposed = n.c.now
		n.command(c, attempts, func(r control.Result) {
			if !answered {
				answered = true
				n.senders = append(n.senders, s)
				done(r)
			}
		})
		attempts++
		n.after(n.between(250*time.Millisecond, 400*time.Millisecond), try)
	}
	try()
}

// atLeader asks whoever leads, as far as this node knows, for something.
func (n *node) atLeader(attempt int, request func(v *voter, reply func(do func()))) {
	to, life := n.voter.leader, n.life
	if to == nowhere || attempt%3 == 2 {
		to = n.c.group.voters[n.rand.IntN(len(n.c.group.voters))].at
	}
	n.c.net.datagram(n.at, to, func() {
		v := n.c.group.voters[to]
		if v.role != leading {
			return
		}
		request(v, func(do func()) {
			n.c.net.datagram(to, n.at, func() {
				if n.life == life {
					do()
				}
			})
		})
	})
}

func (n *node) command(c control.Command, attempt int, done func(control.Result)) {
	n.atLeader(attempt, func(v *voter, reply func(func())) {
		v.write(func() {
			if v.role == leading {
				v.command(c, func(r control.Result) { reply(func() { done(r) }) })
			}
		})
	})
}

// renew asks for the lease of a lone primary.
func (n *node) renew(epoch uint64, done func()) {
	n.atLeader(0, func(v *voter, reply func(func())) {
		v.renew(n.name(), epoch, func() { reply(done) })
	})
}

// propose has the group decide on a configuration of this node's, until it is known
// what is in force then, and whether that is it.
func (n *node) propose(conf mirror.Configuration, stores [mirror.MaxReplicas]wire.ID, done func(v *control.Volume, won bool)) {
	var inSync []int
	var ids []control.ID
	for i := range n.c.nodes {
		if conf.InSync.Has(mirror.ReplicaID(i)) {
			inSync = append(inSync, i)
		}
		ids = append(ids, control.ID(stores[i]))
	}
	c := control.Propose(volumeName, conf.Epoch, name(place(conf.Primary)), n.name(), inSync, ids)
	n.do(c, func(r control.Result) {
		if r.Refused != "" || r.Expired {
			n.c.violate("node %d's proposal %v is refused: %s", n.id, conf, r.Refused)
		}
		done(r.Volume, r.Won)
	})
}
