package mirror

import (
	"context"

	"lockstep/mirror/wire"
)

// roster is what a volume knows of its members' stores, and its way to the
// configuration service.
type roster interface {
	// all is every member; it never changes.
	all() Set
	// promotion is what this copy brings along as the primary, and under which
	// configuration it is that.
	promotion(context.Context) (*Promotion, Configuration, error)
	// wantsAll says that the volume is not to be used before all members are in sync.
	wantsAll() bool
	// propose asks for c to follow what is in force, and returns what is then. After an
	// error either may be.
	propose(ctx context.Context, c Configuration) (Configuration, error)
	// same says whether the store that answers for a member is the one on record.
	same(i ReplicaID, id wire.ID) bool
	// identify notes which store answers for a member. The machine must know already
	// whether it is the same: once on record, it is taken to have what the one before
	// had but for what the machine says that it lacks.
	identify(i ReplicaID, id wire.ID) error
	// replica is the ID of the store that stands for a member, if one is known.
	replica(i ReplicaID) (wire.ID, bool)
}
