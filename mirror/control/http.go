package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// reply is the answer to each request. One of Result and the reasons is set.
type reply struct {
	Result  *Result       `json:"result,omitempty"`
	Refused string        `json:"refused,omitempty"` // for good
	Held    string        `json:"held,omitempty"`    // for now
	Left    time.Duration `json:"left,omitempty"`    // of Held, nanoseconds
	Leader  string        `json:"leader,omitempty"`  // who else to ask
	Addr    string        `json:"addr,omitempty"`
	Failed  string        `json:"failed,omitempty"` // what came of it is not known
}

// renewal asks for a lone primary's lease.
type renewal struct {
	Volume string `json:"volume"`
	Epoch  uint64 `json:"epoch"`
}

// report is what a node says of itself and of the group.
type report struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Fresh    bool              `json:"fresh"`    // it takes no part yet
	Founders map[string]string `json:"founders"` // identity by name, of those it began with
	Index    uint64            `json:"index"`
	State    *State            `json:"state"`
}

const maxBody = 64 << 20 // bytes of a reply; a state is the largest

// Handler serves the other nodes: POST /control/do with a [Command], POST
// /control/renew, the same behind /control/relay/ for who does not hear from the
// leader, and GET /control/state.
func (c *Control) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /control/do", serve(func(ctx context.Context, cmd Command) (Result, error) {
		return c.applyHere(ctx, cmd)
	}))
	mux.HandleFunc("POST /control/renew", serve(func(ctx context.Context, r renewal) (Result, error) {
		return Result{}, c.renewHere(ctx, r.Volume, r.Epoch)
	}))
	mux.HandleFunc("POST /control/relay/do", serve(func(ctx context.Context, cmd Command) (Result, error) {
		return c.passOn(ctx, c.commandQuestion(cmd))
	}))
	mux.HandleFunc("POST /control/relay/renew", serve(func(ctx context.Context, r renewal) (Result, error) {
		return c.passOn(ctx, c.renewalQuestion(r))
	}))
	mux.HandleFunc("GET /control/state", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, c.report())
	})
	return mux
}

// serve answers requests with a T for their body.
func serve[T any](answer func(context.Context, T) (Result, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body T
		if !decodeBody(w, r, &body) {
			return
		}
		result, err := answer(r.Context(), body)
		writeReply(w, result, err)
	}
}

func decodeBody(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(into)
	if err != nil {
		http.Error(w, "control: read the request: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func writeReply(w http.ResponseWriter, result Result, err error) {
	var (
		rep     reply
		refused *Refused
		later   *held
		other   *notLeader
	)
	switch {
	case err == nil:
		rep.Result = &result
	case errors.As(err, &refused):
		rep.Refused = refused.Reason
	case errors.As(err, &later):
		rep.Held, rep.Left = later.why, later.left
	case errors.As(err, &other):
		rep.Leader, rep.Addr = other.name, other.addr
		rep.Failed = other.Error()
	default:
		rep.Failed = err.Error()
	}
	writeJSON(w, rep)
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the other side notices a broken connection
}

// outcome is what the other node meant.
func (r reply) outcome(from string) (Result, error) {
	switch {
	case r.Refused != "":
		return Result{}, &Refused{r.Refused}
	case r.Held != "":
		return Result{}, &held{r.Held, r.Left}
	case r.Leader != "":
		return Result{}, &notLeader{r.Leader, r.Addr}
	case r.Failed != "":
		return Result{}, fmt.Errorf("control: node %q: %s", from, r.Failed)
	case r.Result == nil:
		return Result{}, fmt.Errorf("control: node %q answered nothing", from)
	}
	return *r.Result, nil
}

// call asks another node; in and out are JSON, and in may be nil.
func (c *Control) call(ctx context.Context, node, method, path string, in, out any) error {
	addr, ok := c.address(node)
	if !ok {
		return fmt.Errorf("control: the address of node %q is not known", node)
	}
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return &Refused{err.Error()}
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, body)
	if err != nil {
		return fmt.Errorf("control: ask node %q: %w", node, err)
	}
	resp, err := c.conf.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("control: ask node %q: %w", node, err)
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxBody)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer, 200))
		return fmt.Errorf("control: node %q answers %s: %s", node, resp.Status, text)
	}
	if err := json.NewDecoder(answer).Decode(out); err != nil {
		return fmt.Errorf("control: the answer of node %q: %w", node, err)
	}
	return nil
}
