package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/host"
)

// askTimeout bounds what a status waits for another node.
const askTimeout = 2 * time.Second

func (n *node) getStatus(w http.ResponseWriter, r *http.Request) {
	only := r.URL.Query().Get("volume")
	s := n.group.State()
	if only != "" && s.Volumes[only] == nil {
		api.Refuse(w, http.StatusNotFound, fmt.Sprintf("there is no volume %q (see lockstep volume list)", only))
		return
	}
	status := api.Status{Node: n.conf.Name, Group: n.group.Status(), Nodes: s.Nodes, Volumes: []api.VolumeStatus{}}
	for _, name := range slices.Sorted(maps.Keys(s.Volumes)) {
		if only == "" || only == name {
			status.Volumes = append(status.Volumes, api.VolumeStatus{Volume: s.Volumes[name]})
		}
	}
	var asked sync.WaitGroup
	for i := range status.Volumes {
		asked.Go(func() { n.stand(r.Context(), &status.Volumes[i]) })
	}
	asked.Wait()
	api.Answer(w, http.StatusOK, status)
}

// stand fills in how a volume stands.
func (n *node) stand(ctx context.Context, v *api.VolumeStatus) {
	role := host.Bystander
	if seat := n.host.Seat(v.Name); seat != nil {
		role = seat.Role()
	}
	v.Role = string(role)
	standing, err := n.standing(ctx, v.Volume)
	if err != nil {
		v.Error = err.Error()
		v.Suspended = "nobody is known to lead it: " + v.Error
		return
	}
	v.Standing, v.Suspended = standing, suspended(standing)
}

// suspended says why requests wait; "" if they do not.
func suspended(s *mirror.Status) string {
	switch {
	case s.Failed != "":
		return s.Failed
	case !s.Serving:
		return "its copies are made equal first"
	case !s.Ready:
		return "writes wait for a replica that is lost"
	}
	return ""
}

// standing asks the primary of a volume how it stands.
func (n *node) standing(ctx context.Context, v *control.Volume) (*mirror.Status, error) {
	if seat := n.host.Seat(v.Name); seat != nil {
		if s, ok := seat.Status(); ok {
			return &s, nil
		}
	}
	if v.Primary == n.conf.Name {
		return nil, fmt.Errorf("%s is the primary and does not lead yet", v.Primary)
	}
	s := new(mirror.Status)
	if err := n.askNode(ctx, v.Primary, "/volumes/"+url.PathEscape(v.Name)+"/standing", s); err != nil {
		return nil, fmt.Errorf("its primary: %w", err)
	}
	return s, nil
}

// askNode asks another node for what it knows itself.
func (n *node) askNode(ctx context.Context, node, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.group.State().Nodes[node].Addr+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set(relayed, n.conf.Name)
	response, err := n.peers.Do(request)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if err != nil {
		return fmt.Errorf("node %s cannot be asked: %w", node, err)
	}
	defer response.Body.Close()
	body := json.NewDecoder(io.LimitReader(response.Body, maxBody))
	if response.StatusCode != http.StatusOK {
		var refusal api.Refusal
		_ = body.Decode(&refusal) // the code says it too
		return fmt.Errorf("node %s answers %s: %s", node, response.Status, refusal.Error)
	}
	if err := body.Decode(into); err != nil {
		return fmt.Errorf("read the answer of node %s: %w", node, err)
	}
	return nil
}

// whatIsLost refuses a failover to a copy that is not in sync, and says what it would
// cost.
func (n *node) whatIsLost(ctx context.Context, v *control.Volume, node string) string {
	const mend = "; if that is acceptable, say --accept-data-loss"
	what := fmt.Sprintf("the copy at %s is not in sync: it lacks writes that were acknowledged", node)
	if standing, err := n.standing(ctx, v); err == nil {
		for _, r := range standing.Replicas {
			if r.Member < len(v.Replicas) && v.Replicas[r.Member].Node == node {
				return fmt.Sprintf("%s (%d bytes at this moment, and the primary, %s, serves: use handover when it is in sync)%s", what, r.Left, v.Primary, mend)
			}
		}
	}
	events := n.group.State().Events
	for _, e := range slices.Backward(events) {
		if e.Volume == v.Name {
			return fmt.Sprintf("%s at least since %s (%s)%s", what, e.At.Format(time.RFC3339), e.What, mend)
		}
	}
	return what + mend
}

// longestWait bounds how long a request for events may wait for one.
const longestWait = time.Minute

// getEvents answers with the events of a volume, or all, after an index; with wait it
// waits for the first.
func (n *node) getEvents(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	after, err := strconv.ParseUint(query.Get("after"), 10, 64)
	if err != nil && query.Has("after") {
		api.Refuse(w, http.StatusBadRequest, "after is the index of an event")
		return
	}
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil && query.Has("wait") {
		api.Refuse(w, http.StatusBadRequest, "wait is a duration as 30s")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(wait, longestWait))
	defer cancel()
	for {
		changed := n.group.Changed()
		found := []control.Event{}
		for _, e := range n.group.State().Events {
			if e.Index > after && (query.Get("volume") == "" || e.Volume == query.Get("volume")) {
				found = append(found, e)
			}
		}
		if len(found) > 0 || ctx.Err() != nil {
			api.Answer(w, http.StatusOK, found)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// getHealth says whether all is well: 200, or 503 and what is not.
func (n *node) getHealth(w http.ResponseWriter, _ *http.Request) {
	h := api.Health{Node: n.conf.Name, Wrong: []string{}}
	if err := n.group.Err(); err != nil {
		h.Wrong = append(h.Wrong, err.Error())
	}
	if _, ok := n.group.Leader(); !ok {
		h.Wrong = append(h.Wrong, "the control plane has no leader: is a majority of its voters there?")
	}
	for _, seat := range n.host.Seats() {
		if s, ok := seat.Status(); ok {
			if why := suspended(&s); why != "" {
				h.Wrong = append(h.Wrong, fmt.Sprintf("volume %s, led here, is suspended: %s", seat.Name(), why))
			}
		}
	}
	h.OK = len(h.Wrong) == 0
	code := http.StatusOK
	if !h.OK {
		code = http.StatusServiceUnavailable
	}
	api.Answer(w, code, h)
}
