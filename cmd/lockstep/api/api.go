// Package api is what the admin API of a lockstep node says, and a client of it. The
// page of package node lists its paths.
package api

import (
	"encoding/json"
	"net/http"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// Status is how the cluster looks from the node that answers.
type Status struct {
	Node    string                  `json:"node"` // that answers
	Group   control.Status          `json:"group"`
	Nodes   map[string]control.Node `json:"nodes"`
	Volumes []VolumeStatus          `json:"volumes"` // by name
}

// VolumeStatus is how a volume stands.
type VolumeStatus struct {
	*control.Volume
	// Role is what the node that answers is to it: bystander, following, leading or
	// stopping.
	Role string `json:"role"`
	// Suspended is why requests to the volume wait; "" if they do not, as far as is known.
	Suspended string `json:"suspended,omitempty"`
	// Standing is what the primary says of it; nil if it could not be asked.
	Standing *mirror.Status `json:"standing,omitempty"`
	// Error is why it could not.
	Error string `json:"error,omitempty"`
}

// Create asks for a volume.
type Create struct {
	Name   string         `json:"name"`
	Size   int64          `json:"size"` // bytes
	On     []string       `json:"on"`   // nodes; the first is the first primary
	Policy control.Policy `json:"policy"`
}

// Resize asks for another size.
type Resize struct {
	Size int64 `json:"size"` // bytes
}

// Place names a node.
type Place struct {
	Node string `json:"node"`
}

// Handover asks for another primary.
type Handover struct {
	To string `json:"to"`
}

// Moved is what a handover or a failover came to.
type Moved struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Epoch   uint64  `json:"epoch"`
	PauseMS float64 `json:"pause_ms"` // how long requests had to wait
}

// Failover asks for another primary, whatever the one in force says.
type Failover struct {
	To             string `json:"to"`
	AcceptDataLoss bool   `json:"accept_data_loss"`
}

// Health is whether what the node does is all right.
type Health struct {
	OK    bool     `json:"ok"`
	Node  string   `json:"node"`
	Wrong []string `json:"wrong"` // what is not
}

// Refusal is the answer to what can't be done.
type Refusal struct {
	Error string `json:"error"`
}

// Answer sends v.
func Answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The client may be gone, and there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// Refuse sends why something can't be done.
func Refuse(w http.ResponseWriter, code int, why string) { Answer(w, code, Refusal{why}) }

// Members is who takes part in the cluster.
type Members struct {
	Node  string                  `json:"node"` // whose view it is: the leader's, if there is one
	Group control.Status          `json:"group"`
	Nodes map[string]control.Node `json:"nodes"`
}
