package node

import (
	"fmt"
	"net/http"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

// getNodes answers with what the leader knows, who alone measures the others; or with
// what is known here, if it cannot be asked.
func (n *node) getNodes(w http.ResponseWriter, r *http.Request) {
	m := api.Members{Node: n.conf.Name, Group: n.group.Status(), Nodes: n.group.State().Nodes}
	if leader := m.Group.Leader; leader != n.conf.Name && leader != "" && r.Header.Get(relayed) == "" {
		if theirs := new(api.Members); n.askNode(r.Context(), leader, "/nodes", theirs) == nil {
			m = *theirs
		}
	}
	api.Answer(w, http.StatusOK, m)
}

func (n *node) deleteNode(w http.ResponseWriter, r *http.Request) {
	if name, ok := n.member(w, r); ok {
		n.carryOut(w, r, control.RemoveNode(name))
	}
}

func (n *node) promote(w http.ResponseWriter, r *http.Request) {
	if name, ok := n.member(w, r); ok {
		n.carryOut(w, r, control.Promote(name))
	}
}

func (n *node) demote(w http.ResponseWriter, r *http.Request) {
	if name, ok := n.member(w, r); ok {
		n.carryOut(w, r, control.Demote(name))
	}
}

// member finds the node that a request is about; if there is none it has answered.
func (n *node) member(w http.ResponseWriter, r *http.Request) (string, bool) {
	name := r.PathValue("node")
	_, ok := n.group.State().Nodes[name]
	if !ok {
		api.Refuse(w, http.StatusNotFound, fmt.Sprintf("there is no node %q (see lockstep cluster list)", name))
	}
	return name, ok
}
