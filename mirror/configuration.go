package mirror

import (
	"fmt"
	"math/bits"
	"strings"
)

// ReplicaID numbers the members of a volume, its primary included, from 0 in
// the order in which the volume names them.
type ReplicaID int

// MaxReplicas bounds a volume's members: a bit each in an op's state.
const MaxReplicas = 16

// Set is a set of members, a bit each.
type Set uint16

// SetOf returns the set of ids.
func SetOf(ids ...ReplicaID) Set {
	var s Set
	for _, id := range ids {
		s = s.With(id)
	}
	return s
}

// Has says whether id is in s.
func (s Set) Has(id ReplicaID) bool { return s&(1<<id) != 0 }

// With returns s and id.
func (s Set) With(id ReplicaID) Set { return s | 1<<id }

// Without returns s less id.
func (s Set) Without(id ReplicaID) Set { return s &^ (1 << id) }

// Len is the number of members in s.
func (s Set) Len() int { return bits.OnesCount16(uint16(s)) }

func (s Set) String() string {
	var ids []string
	for id := ReplicaID(0); id < MaxReplicas; id++ {
		if s.Has(id) {
			ids = append(ids, fmt.Sprint(int(id)))
		}
	}
	return "{" + strings.Join(ids, " ") + "}"
}

// Configuration says who may acknowledge what. The configuration service keeps
// the one in force; each change is a compare-and-swap from the epoch before it.
// Members that are not in sync are learners, or absent.
type Configuration struct {
	Epoch   uint64 // 1 for the first
	Primary ReplicaID
	InSync  Set // the primary included: a write is complete when all of these have it
}

func (c Configuration) String() string {
	return fmt.Sprintf("epoch %d, primary %d, in sync %v", c.Epoch, c.Primary, c.InSync)
}

// Takeover is the configuration that a member proposes to take over from the
// primary of c: c without that primary, one epoch later.
func (c Configuration) Takeover(by ReplicaID) Configuration {
	return Configuration{Epoch: c.Epoch + 1, Primary: by, InSync: c.InSync.Without(c.Primary).With(by)}
}
