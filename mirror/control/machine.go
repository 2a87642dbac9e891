package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// machine is the state as raft drives it.
type machine struct{ *Control }

// Apply gives the state the next command of the log. All nodes refuse the same
// entries, so that they stay the same.
func (m machine) Apply(entry *raft.Log) any {
	result := Result{}
	c, err := decodeCommand(entry.Data)
	if err != nil {
		result.Refused = err.Error()
	} else {
		var next *State
		next, result = m.State().Apply(c)
		m.state.Store(next)
	}
	result.Index = entry.Index
	m.applied.Store(entry.Index)
	m.announceChange()
	return result
}

// Snapshot returns the state to be saved.
func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{m.State(), m.applied.Load()}, nil
}

// Restore takes over a state that was saved.
func (m machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	s, index, err := decodeState(from)
	if err != nil {
		return err
	}
	m.state.Store(s)
	m.applied.Store(index)
	m.announceChange()
	return nil
}

type snapshot struct {
	state *State
	index uint64
}

// Persist writes the state, see [encodeState].
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := encodeState(sink, s.state, s.index); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to do: the state is immutable.
func (snapshot) Release() {}

// saved is the form of a state in snapshots, behind a version byte.
type saved struct {
	*State
	Clients map[string]answer `json:"clients"`
	Applied uint64            `json:"applied"` // commands
	Index   uint64            `json:"index"`   // of raft's log
}

func encodeState(w io.Writer, s *State, index uint64) error {
	text, err := json.Marshal(saved{s, s.clients, s.applied, index})
	if err == nil {
		_, err = w.Write(append([]byte{logVersion}, text...))
	}
	if err != nil {
		return fmt.Errorf("control: write a snapshot: %w", err)
	}
	return nil
}

func decodeState(r io.Reader) (*State, uint64, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, fmt.Errorf("control: read a snapshot: %w", err)
	}
	if len(text) == 0 || text[0] != logVersion {
		return nil, 0, errors.New("control: a snapshot of another version: upgrade this node")
	}
	in := saved{State: NewState()}
	if err := json.Unmarshal(text[1:], &in); err != nil {
		return nil, 0, fmt.Errorf("control: read a snapshot: %w", err)
	}
	if in.clients = in.Clients; in.clients == nil {
		in.clients = map[string]answer{}
	}
	in.applied = in.Applied
	return in.State, in.Index, nil
}
