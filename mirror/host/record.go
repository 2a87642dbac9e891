package host

import (
	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/wire"
)

// slotOf is the number of a node's replica, or mirror.NoReplica.
func slotOf(v *control.Volume, node string) mirror.ReplicaID { return mirror.ReplicaID(v.Slot(node)) }

// recordOf is what v says of its members, by their numbers.
func recordOf(v *control.Volume) mirror.Record {
	r := mirror.Record{By: slotOf(v, v.By)}
	r.Epoch, r.Primary = v.Epoch, slotOf(v, v.Primary)
	for i, replica := range v.Replicas {
		if replica.InSync {
			r.InSync = r.InSync.With(mirror.ReplicaID(i))
		}
		r.Stores[i] = wire.ID(replica.Store)
	}
	return r
}

// slotsOf lists a set for the group.
func slotsOf(set mirror.Set) (slots []int) {
	for i := range mirror.MaxReplicas {
		if set.Has(mirror.ReplicaID(i)) {
			slots = append(slots, i)
		}
	}
	return slots
}
