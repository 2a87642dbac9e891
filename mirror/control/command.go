package control

import (
	"encoding/json"
	"errors"
	"fmt"
)

// logVersion is the first byte of each command in raft's log.
const logVersion = 1

// Command asks for one change of the state. Make it with one of the functions below
// and set Why if a person may wonder; [Control.Do] fills in the rest.
type Command struct {
	Client string `json:"client"` // sender; with Seq it makes a command that is sent again apply once
	Seq    uint64 `json:"seq"`    // 1 for a client's first
	At     int64  `json:"at"`     // nanoseconds since 1970
	Why    string `json:"why,omitempty"`

	Kind    Kind            `json:"kind"`
	Volume  string          `json:"volume,omitempty"`
	Epoch   uint64          `json:"epoch,omitempty"` // that the change begins; 0: the next, whatever it is
	Primary string          `json:"primary,omitempty"`
	By      string          `json:"by,omitempty"`
	InSync  []int           `json:"in_sync,omitempty"`
	Stores  []ID            `json:"stores,omitempty"` // by slot
	ID      ID              `json:"id,omitzero"`
	Size    int64           `json:"size,omitempty"`
	Policy  *Policy         `json:"policy,omitempty"`
	Node    string          `json:"node,omitempty"`
	New     string          `json:"new,omitempty"`     // node that replaces Node
	Members []string        `json:"members,omitempty"` // nodes, by slot; of a proposal: as its proposer knows them
	Of      string          `json:"of,omitempty"`      // the named client that attaches
	Session *Session        `json:"session,omitempty"` // of that client, if it says so
	Info    *Node           `json:"info,omitempty"`
	Nodes   map[string]Node `json:"nodes,omitempty"`
}

// Kind says what a command does.
type Kind string

// The kinds of command, each made by the function of that name.
const (
	kindPropose  Kind = "propose"
	kindCreate   Kind = "create"
	kindDelete   Kind = "delete"
	kindResize   Kind = "resize"
	kindPolicy   Kind = "policy"
	kindAdd      Kind = "add-replica"
	kindRemove   Kind = "remove-replica"
	kindReplace  Kind = "replace-replica"
	kindForce    Kind = "force"
	kindAttach   Kind = "attach"
	kindForgot   Kind = "forgot"
	kindFound    Kind = "found"
	kindNode     Kind = "node"
	kindNodeGone Kind = "remove-node"
	kindVoter    Kind = "voter"
	kindNonvoter Kind = "nonvoter"
)

// Result is what a command came to.
type Result struct {
	Index      uint64  `json:"index,omitempty"` // of raft's log; whoever applied it knows
	Won        bool    `json:"won"`             // the change is in force
	Volume     *Volume `json:"volume,omitempty"`
	Generation uint64  `json:"generation,omitempty"` // of an attached client
	Superseded bool    `json:"superseded,omitempty"` // of Resume: another has attached under the client's name since
	Refused    string  `json:"refused,omitempty"`    // why it can never apply; "" if it applied or merely lost
	Expired    bool    `json:"expired,omitempty"`    // the sender was forgotten: nobody knows what its last command came to
}

// Propose is node by's proposal of the configuration that begins with epoch. It is
// applied if epoch is the next one; else, the first proposal won. inSync lists slots;
// stores, by slot, sets the stores that are not zero. Who is not the primary in force
// may leave replicas out but not bring any in.
func Propose(volume string, epoch uint64, primary, by string, inSync []int, stores []ID) Command {
	return Command{Kind: kindPropose, Volume: volume, Epoch: epoch, Primary: primary, By: by, InSync: inSync, Stores: stores}
}

// CreateVolume makes a volume of size bytes, a multiple of 512, on nodes, 1 to
// MaxReplicas. The first is to be its first primary, and all are in sync: nothing was
// written yet.
func CreateVolume(name string, id ID, size int64, policy Policy, nodes ...string) Command {
	return Command{Kind: kindCreate, Volume: name, ID: id, Size: size, Policy: &policy, Members: nodes}
}

// DeleteVolume forgets a volume.
func DeleteVolume(name string) Command { return Command{Kind: kindDelete, Volume: name} }

// ResizeVolume grows a volume to size bytes, a multiple of 512. For epoch see [Command].
func ResizeVolume(name string, epoch uint64, size int64) Command {
	return Command{Kind: kindResize, Volume: name, Epoch: epoch, Size: size}
}

// SetPolicy changes a volume's policy. For epoch see [Command].
func SetPolicy(name string, epoch uint64, policy Policy) Command {
	return Command{Kind: kindPolicy, Volume: name, Epoch: epoch, Policy: &policy}
}

// AddReplica gives node an empty replica of the volume, in a free slot.
func AddReplica(volume string, epoch uint64, node string) Command {
	return Command{Kind: kindAdd, Volume: volume, Epoch: epoch, Node: node}
}

// RemoveReplica frees the slot of node's replica, which must not be the primary's.
func RemoveReplica(volume string, epoch uint64, node string) Command {
	return Command{Kind: kindRemove, Volume: volume, Epoch: epoch, Node: node}
}

// ReplaceReplica gives the slot of node's replica, which must not be the primary's, to
// an empty one on another node; or to an empty one on the same.
func ReplaceReplica(volume string, epoch uint64, node, by string) Command {
	return Command{Kind: kindReplace, Volume: volume, Epoch: epoch, Node: node, New: by}
}

// Force makes node the primary, alone, because an operator says so; what it lacks is
// lost. It waits for the lease of a primary that is alone.
func Force(volume string, epoch uint64, node string) Command {
	return Command{Kind: kindForce, Volume: volume, Epoch: epoch, Node: node}
}

// Attach begins a new generation of a volume's named client, and returns it.
func Attach(volume, client string) Command {
	return Command{Kind: kindAttach, Volume: volume, Of: client}
}

// Resume is Attach for a client that says which of its own stays this is: several
// connections of one stay are of one generation, a later stay begins a new one. An agent's
// first takes over from whoever had the name; after that an agent whose name
// was taken over is refused (Result.Superseded), so that two never fence each other in turn.
func Resume(volume, client string, s Session) Command {
	return Command{Kind: kindAttach, Volume: volume, Of: client, Session: &s}
}

// AddNode makes a node known, as a non-voter, or changes what is known of it. A voter
// whose info.ID is another one has forgotten how it voted, and is refused.
func AddNode(name string, info Node) Command {
	return Command{Kind: kindNode, Node: name, Info: &info}
}

// RemoveNode forgets a node. One with a replica in sync is refused, and the last voter.
func RemoveNode(name string) Command { return Command{Kind: kindNodeGone, Node: name} }

// Promote makes a node a voter: at once in the state, and in raft when it caught up.
func Promote(name string) Command { return Command{Kind: kindVoter, Node: name} }

// Demote makes a voter a node without a vote.
func Demote(name string) Command { return Command{Kind: kindNonvoter, Node: name} }

// NewIncarnation says that acknowledged writes may be gone, although nobody chose
// that: every copy in sync of volume's epoch lost power. Its clients must hear of it.
func NewIncarnation(volume string, epoch uint64) Command {
	return Command{Kind: kindForgot, Volume: volume, Epoch: epoch}
}

// found names the nodes that the group began with, once.
func found(nodes map[string]Node) Command { return Command{Kind: kindFound, Nodes: nodes} }

func (c Command) encode() ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("control: encode command %s: %w", c.Kind, err)
	}
	return append([]byte{logVersion}, text...), nil
}

func decodeCommand(entry []byte) (c Command, err error) {
	if len(entry) == 0 || entry[0] != logVersion {
		return c, errors.New("control: a log entry of another version: upgrade this node")
	}
	if err := json.Unmarshal(entry[1:], &c); err != nil {
		return c, fmt.Errorf("control: decode log entry: %w", err)
	}
	return c, nil
}
