package mirror

import (
	"time"

	"lockstep/mirror/internal/sabotage"
	"lockstep/mirror/wire"
)

// NoReplica is nobody's number.
const NoReplica ReplicaID = -1

// Record is what the configuration service keeps of a volume's members.
type Record struct {
	Configuration
	// By proposed it; [NoReplica] if an operator did. That it is not Primary says that
	// the one before gave its place up.
	By ReplicaID
	// Stores are the members' stores, as far as known: a copy on another disk is
	// another copy.
	Stores [MaxReplicas]wire.ID
	// Gone are the members, as whoever asks knows them, that are none any more: their
	// numbers are free, or others'.
	Gone Set
}

// Claim says what this copy's node should propose, to be the primary after r, if it
// may and should. Before it proposes that it must [Follower.Fence] that epoch.
//
//	r                                        this copy               claims
//	a new volume, this is its first primary  any                     at once, alone in sync
//	the primary handed over to this one      whole                   at once: it had stopped before
//	this was the primary                     lost power              at once, to wait for the others in sync:
//	                                                                 in vain if one of them is whole
//	this was the primary, or is in sync      whole                   a grace after its last promise
//	any                                      not in sync             never
//
// Who was the primary waits like the others: an earlier run of its process may have
// made a promise, to a primary that this one does not remember.
func (f *Follower) Claim(r Record, self ReplicaID, grace, now time.Duration) (next Configuration, ok bool) {
	again := Configuration{Epoch: r.Epoch + 1, Primary: self, InSync: r.InSync}
	mine := r.Primary == self
	switch {
	case !r.InSync.Has(self) && !sabotage.On("outsider"):
		return Configuration{}, false
	case r.Epoch == 0 && !mine:
		return Configuration{}, false
	case r.Epoch == 0:
		return Configuration{Epoch: 1, Primary: self, InSync: SetOf(self)}, true // the others' disks are empty
	case r.Epoch < f.id.Epoch: // there is a newer one, which this node has not heard of
		return Configuration{}, false
	case mine && f.id.Lossy:
		return again, true
	case !f.id.Complete && !sabotage.On("outsider"):
		return Configuration{}, false
	case mine && r.By != self && r.By != NoReplica:
		return again, true
	case now-f.heard <= grace && !sabotage.On("grace"):
		return Configuration{}, false
	case mine:
		return again, true
	default:
		return r.Takeover(self), true
	}
}
