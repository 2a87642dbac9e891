package main

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/node"
)

// asking are the flags of the commands that ask a node.
type asking struct {
	Admin string `env:"LOCKSTEP_ADMIN" placeholder:"PATH" help:"The admin socket of a node, or its data directory."`
	Node  string `env:"LOCKSTEP_NODE" placeholder:"HOST:PORT" help:"Ask over TCP instead: any node's port."`
	JSON  bool   `help:"Print JSON."`
}

// client is for whom the flags name; the caller closes it.
func (a *asking) client() (*api.Client, error) {
	switch {
	case a.Node != "":
		return api.TCP(a.Node), nil
	case a.Admin == "":
		return nil, misuse{errors.New("whom to ask? Give --admin DATA/admin.sock of a node, or --node HOST:PORT (or set LOCKSTEP_ADMIN or LOCKSTEP_NODE)")}
	}
	path := a.Admin
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, node.AdminSocket)
	}
	return api.Unix(path), nil
}

// volumePath is the path of the API for a volume, and for what comes below it.
func volumePath(volume string, below ...string) string {
	path := "/volumes/" + url.PathEscape(volume)
	for _, part := range below {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// refusedBy makes a misuse of what a node says was asked wrongly.
func refusedBy(err error) error {
	if refused, ok := errors.AsType[*api.Refused](err); ok && refused.Code == http.StatusBadRequest {
		return misuse{err}
	}
	return err
}

// orDash is text for a table's cell.
func orDash(text string) string { return cmp.Or(text, "-") }
