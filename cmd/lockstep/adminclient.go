package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// verdict is the exit code of a command that did what was asked, and whose answer
// is not the good one. The answer has been printed: there is no more to say.
type verdict int

const (
	exitDegraded verdict = 3 // status: not every replica is in sync
	exitDiffers  verdict = 4 // verify: copies differed, even if they were repaired
)

func (v verdict) Error() string {
	switch v {
	case exitDegraded:
		return "not every replica is in sync"
	case exitDiffers:
		return "copies of the volume differ"
	}
	return fmt.Sprintf("exit code %d", int(v))
}

// adminClient asks a serving process at its admin socket.
type adminClient struct {
	path string
	http http.Client
}

func newAdminClient(path string) *adminClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &adminClient{path, http.Client{Transport: &http.Transport{DialContext: dial}}}
}

func (c *adminClient) close() { c.http.CloseIdleConnections() }

// ask sends a request without a body. The caller closes the answer's body. An
// answer that is not 200 is an error.
func (c *adminClient) ask(ctx context.Context, method, target string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://lockstep"+target, nil)
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
		return nil, fmt.Errorf("ask the lockstep serve at %s: %w%s", c.path, err, adminDialHint(err))
	case response.StatusCode == http.StatusOK:
		return response, nil
	}
	defer response.Body.Close()
	var refusal verifyLine
	if json.NewDecoder(response.Body).Decode(&refusal) != nil || refusal.Error == "" {
		refusal.Error = response.Status + " (is a lockstep serve of this version behind that socket?)"
	}
	return nil, fmt.Errorf("the lockstep serve at %s answered: %s", c.path, refusal.Error)
}

func adminDialHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return " (is lockstep serve running, with the same --admin?)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return " (the process that made the socket has ended: start lockstep serve again)"
	case errors.Is(err, fs.ErrPermission):
		return " (ask as the user that runs lockstep serve, or as root)"
	}
	return ""
}
