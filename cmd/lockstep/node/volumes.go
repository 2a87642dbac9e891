package node

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
	"lockstep/mirror/store"
)

// namePattern is what a volume may be called: the name is a part of paths, and what
// NBD clients write before an @.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (n *node) getVolumes(w http.ResponseWriter, _ *http.Request) {
	volumes := n.group.State().Volumes
	all := make([]*control.Volume, 0, len(volumes))
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		all = append(all, volumes[name])
	}
	api.Answer(w, http.StatusOK, all)
}

func (n *node) getVolume(w http.ResponseWriter, r *http.Request) {
	if v, ok := n.volume(w, r); ok {
		api.Answer(w, http.StatusOK, v)
	}
}

func (n *node) postVolume(w http.ResponseWriter, r *http.Request) {
	ask, ok := read[api.Create](w, r)
	if !ok {
		return
	}
	var wrong string
	switch {
	case !namePattern.MatchString(ask.Name):
		wrong = fmt.Sprintf("a volume's name is 1 to 100 letters, digits, dots, dashes and underscores, and begins with a letter or digit: %.120q is not", ask.Name)
	case len(slices.Compact(slices.Sorted(slices.Values(ask.On)))) != len(ask.On):
		wrong = fmt.Sprintf("a node can have one copy: %s names one twice", strings.Join(ask.On, ","))
	case len(ask.On) == 0:
		wrong = "on which nodes? (the first becomes the primary; see lockstep cluster list)"
	default:
		wrong = cmp.Or(wrongSize(ask.Size), ask.Policy.Wrong())
	}
	if wrong != "" {
		api.Refuse(w, http.StatusBadRequest, wrong)
		return
	}
	var id control.ID
	rand.Read(id[:])
	n.carryOut(w, r, control.CreateVolume(ask.Name, id, ask.Size, completed(ask.Policy, defaultPolicy), ask.On...))
}

func wrongSize(size int64) string {
	if size <= 0 || size%store.SectorSize != 0 {
		return fmt.Sprintf("a volume's size is a positive multiple of %d bytes: %d is not", store.SectorSize, size)
	}
	return ""
}

func (n *node) deleteVolume(w http.ResponseWriter, r *http.Request) {
	if v, ok := n.volume(w, r); ok {
		n.carryOut(w, r, control.DeleteVolume(v.Name))
	}
}

func (n *node) putSize(w http.ResponseWriter, r *http.Request) {
	v, ok := n.volume(w, r)
	if !ok {
		return
	}
	ask, ok := read[api.Resize](w, r)
	if !ok {
		return
	}
	wrong := wrongSize(ask.Size)
	if wrong == "" && ask.Size < v.Size {
		wrong = fmt.Sprintf("volume %s has %d bytes: it can only grow", v.Name, v.Size)
	}
	if wrong != "" {
		api.Refuse(w, http.StatusBadRequest, wrong)
		return
	}
	if ask.Size == v.Size { // it is so already: no reason for a pause
		api.Answer(w, http.StatusOK, v)
		return
	}
	n.carryOut(w, r, control.ResizeVolume(v.Name, v.Epoch+1, ask.Size))
}

func (n *node) putPolicy(w http.ResponseWriter, r *http.Request) {
	v, ok := n.volume(w, r)
	if !ok {
		return
	}
	if ask, ok := read[control.Policy](w, r); ok {
		if wrong := ask.Wrong(); wrong != "" {
			api.Refuse(w, http.StatusBadRequest, wrong)
			return
		}
		policy := completed(completed(ask, v.Policy), defaultPolicy)
		if policy == v.Policy {
			api.Answer(w, http.StatusOK, v)
			return
		}
		n.carryOut(w, r, control.SetPolicy(v.Name, v.Epoch+1, policy))
	}
}

var defaultPolicy = control.Policy{Ack: "written", Failover: "auto", OnIsolation: "suspend", OnLoss: "continue", Lease: control.DefaultLease}

// completed is a policy whose empty fields are another's.
func completed(p, by control.Policy) control.Policy {
	return control.Policy{
		Ack: cmp.Or(p.Ack, by.Ack), Failover: cmp.Or(p.Failover, by.Failover),
		OnIsolation: cmp.Or(p.OnIsolation, by.OnIsolation), OnLoss: cmp.Or(p.OnLoss, by.OnLoss), Lease: cmp.Or(p.Lease, by.Lease),
	}
}

func (n *node) postReplica(w http.ResponseWriter, r *http.Request) {
	v, ok := n.volume(w, r)
	if !ok {
		return
	}
	if ask, ok := read[api.Place](w, r); ok {
		n.carryOut(w, r, control.AddReplica(v.Name, v.Epoch+1, ask.Node))
	}
}

func (n *node) putReplica(w http.ResponseWriter, r *http.Request) {
	v, ok := n.volume(w, r)
	if !ok {
		return
	}
	if ask, ok := read[api.Place](w, r); ok {
		n.carryOut(w, r, control.ReplaceReplica(v.Name, v.Epoch+1, r.PathValue("node"), ask.Node))
	}
}

func (n *node) deleteReplica(w http.ResponseWriter, r *http.Request) {
	if v, ok := n.volume(w, r); ok {
		n.carryOut(w, r, control.RemoveReplica(v.Name, v.Epoch+1, r.PathValue("node")))
	}
}
