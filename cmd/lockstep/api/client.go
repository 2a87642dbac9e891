package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Client asks an admin API. Its methods may be called concurrently.
type Client struct {
	at   string // for people
	base string
	http http.Client
}

// Unix returns a client of the API on a unix socket.
func Unix(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path, "http://lockstep", http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// TCP returns a client of the API at HOST:PORT: a node's own port, or its --admin-tcp.
func TCP(addr string) *Client {
	return &Client{addr, "http://" + addr, http.Client{Transport: &http.Transport{}}}
}

// At is where the client asks, for people.
func (c *Client) At() string { return c.at }

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Refused is an answer that is not 200.
type Refused struct {
	At   string
	Code int
	Why  string
}

// Error says who refused, and why.
func (e *Refused) Error() string { return fmt.Sprintf("lockstep at %s answered: %s", e.At, e.Why) }

// Ask sends a request; ask, unless nil, is its body as JSON. The caller closes the
// answer's body. An answer that is not 200 is a [Refused] error.
func (c *Client) Ask(ctx context.Context, method, target string, ask any) (*http.Response, error) {
	var body io.Reader
	if ask != nil {
		text, err := json.Marshal(ask)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+target, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its text is an URL that nobody knows
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("ask lockstep at %s: %w%s", c.at, err, dialHint(err))
	case response.StatusCode == http.StatusOK:
		return response, nil
	}
	defer response.Body.Close()
	var refusal Refusal
	if json.NewDecoder(response.Body).Decode(&refusal) != nil || refusal.Error == "" {
		refusal.Error = response.Status + " (is a lockstep node of this version there? lockstep serve answers status and verify only)"
	}
	return nil, &Refused{c.at, response.StatusCode, refusal.Error}
}

// Get asks and decodes the answer into out, unless that is nil.
func (c *Client) Get(ctx context.Context, method, target string, ask, out any) error {
	response, err := c.Ask(ctx, method, target, ask)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer of lockstep at %s: %w", c.at, err)
	}
	return nil
}

func dialHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return " (is lockstep node running with that data directory, or lockstep serve with that --admin?)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return " (nobody listens there: the process has ended, or was not started)"
	case errors.Is(err, fs.ErrPermission):
		return " (ask as the user that runs lockstep there, or as root)"
	}
	return ""
}
