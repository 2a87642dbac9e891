package control

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Bounds of what the state holds.
const (
	MaxReplicas = 5    // slots of a volume
	MaxEvents   = 1000 // the newest are kept
	maxClients  = 4096 // senders of commands that are remembered
	maxNamed    = 1024 // named clients of a volume
)

// Operator is who proposed an epoch that a person, not a node, asked for.
const Operator = "operator"

// ID names a volume or a store for ever; the zero ID is not known.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes id as 32 hexadecimal digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(id[:], text); err != nil || n != len(id) || len(text) != 2*len(id) {
		return fmt.Errorf("control: %q is not 32 hexadecimal digits", text)
	}
	return nil
}

// State is what the group agreed on. It is immutable: [State.Apply] makes another.
type State struct {
	Nodes   map[string]Node    `json:"nodes"`
	Volumes map[string]*Volume `json:"volumes"`
	Events  []Event            `json:"events"` // oldest first, at most MaxEvents

	clients map[string]answer // senders of commands, and what the last one of each came to
	applied uint64            // commands so far, repeated ones included
}

// answer is what a sender's newest command came to.
type answer struct {
	Seq    uint64 `json:"seq"`
	At     uint64 `json:"at"` // State.applied then
	Result Result `json:"result"`
}

// Node is a machine of the cluster. Voter is what the group decided; raft's own
// configuration follows it within moments.
type Node struct {
	Addr    string `json:"addr"` // HOST:PORT
	Voter   bool   `json:"voter"`
	Witness bool   `json:"witness"` // holds no replicas
	ID      string `json:"id"`      // of its control directory: another one has forgotten its votes
}

// Volume is the record of a volume: who may acknowledge its writes. Each change of
// the configuration makes Epoch one larger.
type Volume struct {
	Name        string            `json:"name"`
	ID          ID                `json:"id"`    // made at its creation
	Size        int64             `json:"size"`  // bytes
	Epoch       uint64            `json:"epoch"` // 0: created, nobody has been primary yet
	Primary     string            `json:"primary"`
	By          string            `json:"by"`          // the node that proposed this epoch, or Operator
	Replicas    []Replica         `json:"replicas"`    // slot i keeps its number whatever the others do
	Incarnation uint64            `json:"incarnation"` // grows when acknowledged writes may have been given up
	Forced      bool              `json:"forced"`      // this epoch began with an operator who accepted the loss of data
	Policy      Policy            `json:"policy"`
	Clients     map[string]uint64 `json:"clients,omitempty"` // generation of each named client

	// Sessions has the newest of each named client that began with Resume.
	Sessions map[string]Session `json:"sessions,omitempty"`
}

// Session is one stay of a client's agent with a volume.
type Session struct {
	Agent string `json:"agent"`           // random, never used again
	Stay  uint64 `json:"stay"`            // growing with each attempt to be let in somewhere
	First bool   `json:"first,omitempty"` // it was let in nowhere yet: it takes over from another agent. Not on record
}

// Replica is a slot of a volume.
type Replica struct {
	Node   string `json:"node"`  // "" is a free slot
	Store  ID     `json:"store"` // zero: not known yet
	InSync bool   `json:"in_sync"`
}

// Policy is what a volume does when something is lost. The empty string is the first choice of each.
type Policy struct {
	Ack         string `json:"ack"`          // "written" or "durable"
	Failover    string `json:"failover"`     // "auto" or "manual"
	OnIsolation string `json:"on_isolation"` // "suspend" or "error"
	OnLoss      string `json:"on_loss"`      // "continue" or "suspend"

	// Lease is how long a replica's promise not to take over holds, and that of the group
	// to a lone primary; 0 is DefaultLease. It is well above the round trip between the
	// copies, and stays as it was at the volume's creation: copies that judged by different
	// ones would serve stale reads.
	Lease time.Duration `json:"lease,omitempty"`
}

// What a Lease can be.
const (
	DefaultLease = 300 * time.Millisecond
	MinLease     = 50 * time.Millisecond
	MaxLease     = time.Minute
)

// Event is something that happened, for a person to read.
type Event struct {
	Index  uint64    `json:"index"` // 1 for the first ever, without gaps
	At     time.Time `json:"at"`    // by the clock of the node that asked for it
	Volume string    `json:"volume,omitempty"`
	What   string    `json:"what"`
	Why    string    `json:"why,omitempty"`
}

// Lease is the policy's.
func (v *Volume) Lease() time.Duration { return cmp.Or(v.Policy.Lease, DefaultLease) }

// Slot returns the slot of node's replica, or -1.
func (v *Volume) Slot(node string) int {
	return slices.IndexFunc(v.Replicas, func(r Replica) bool { return r.Node == node && node != "" })
}

// InSync returns the slots that are in sync, in order.
func (v *Volume) InSync() []int {
	var slots []int
	for i, r := range v.Replicas {
		if r.InSync {
			slots = append(slots, i)
		}
	}
	return slots
}

// Alone says whether the primary is the only replica in sync, so that only a lease
// of the group keeps an operator from naming another.
func (v *Volume) Alone() bool {
	slots := v.InSync()
	return len(slots) == 1 && slots[0] == v.Slot(v.Primary)
}

// Equal says whether two records are the same.
func (v *Volume) Equal(o *Volume) bool {
	if v == nil || o == nil {
		return v == o
	}
	return v.Name == o.Name && v.ID == o.ID && v.Size == o.Size && v.Epoch == o.Epoch &&
		v.Primary == o.Primary && v.By == o.By && slices.Equal(v.Replicas, o.Replicas) &&
		v.Incarnation == o.Incarnation && v.Forced == o.Forced && v.Policy == o.Policy &&
		maps.Equal(v.Clients, o.Clients) && maps.Equal(v.Sessions, o.Sessions)
}

func (v *Volume) clone() *Volume {
	c := *v
	c.Replicas = slices.Clone(v.Replicas)
	c.Clients, c.Sessions = maps.Clone(v.Clients), maps.Clone(v.Sessions)
	return &c
}

// NewState returns the state of a group to which nothing happened yet.
func NewState() *State {
	return &State{Nodes: map[string]Node{}, Volumes: map[string]*Volume{}, clients: map[string]answer{}}
}

// clone copies what Apply may change; records are replaced, never written to.
func (s *State) clone() *State {
	return &State{
		Nodes: maps.Clone(s.Nodes), Volumes: maps.Clone(s.Volumes), Events: slices.Clone(s.Events),
		clients: maps.Clone(s.clients), applied: s.applied,
	}
}

func (s *State) voters() (names []string) {
	for name, n := range s.Nodes {
		if n.Voter {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
