package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
	"lockstep/mirror/host"
	"lockstep/nbd"
)

// clientMark parts a volume's name from that of a client: VOLUME@CLIENT.
const clientMark = "@"

// Client is the name of a volume's export for a named client.
func Client(volume, client string) string {
	if client == "" {
		return volume
	}
	return volume + clientMark + client
}

// NewAgent returns the name of an agent, never used before.
func NewAgent() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Session is the name of a volume's export for one stay of a client's agent: all
// connections under that name are of one generation, and a later stay, from 1 on, begins
// a new one.
func Session(volume, client, agent string, stay int) string {
	return fmt.Sprintf("%s~%s.%d", Client(volume, client), agent, stay)
}

var sessionPattern = regexp.MustCompile(`^(.+)~([0-9a-f]{16})\.([1-9][0-9]{0,17})$`)

// parseName takes an export's name apart: VOLUME, VOLUME@CLIENT or what Session makes.
func parseName(name string) (volume string, who host.Client) {
	volume, who.Name, _ = strings.Cut(name, clientMark)
	if m := sessionPattern.FindStringSubmatch(who.Name); m != nil {
		stay, _ := strconv.ParseUint(m[3], 10, 64) //nolint:errcheck // the pattern sees to that
		who.Name, who.Session = m[1], control.Session{Agent: m[2], Stay: stay}
	}
	return volume, who
}

// outcome returns what a client is told of failed ops. What has only to be sent again, or
// elsewhere, is no error to it: it loses its connection. One with a session sends again
// also what nobody knows the outcome of.
func outcome(who host.Client) func(error) error {
	resumes := who.Session != (control.Session{})
	return func(err error) error {
		switch {
		case errors.Is(err, forward.ErrClosed), errors.Is(err, forward.ErrSuperseded), errors.Is(err, forward.ErrAbandoned),
			resumes && errors.Is(err, mirror.ErrForgotten):
			return fmt.Errorf("%w: %w", nbd.ErrHangup, err)
		}
		return err
	}
}
