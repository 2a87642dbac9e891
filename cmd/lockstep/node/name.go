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
// a new one. first says that the agent was let in nowhere yet: it takes the name over.
func Session(volume, client, agent string, stay int, first bool) string {
	name := fmt.Sprintf("%s~%s.%d", Client(volume, client), agent, stay)
	if first {
		name += firstMark
	}
	return name
}

// firstMark ends the name of a session whose agent was let in nowhere yet.
const firstMark = "n"

var sessionPattern = regexp.MustCompile(`^(.+)~([0-9a-f]{16})\.([1-9][0-9]{0,17})(n?)$`)

// parseName takes an export's name apart: VOLUME, VOLUME@CLIENT or what Session makes.
func parseName(name string) (volume string, who host.Client) {
	volume, who.Name, _ = strings.Cut(name, clientMark)
	if m := sessionPattern.FindStringSubmatch(who.Name); m != nil {
		stay, _ := strconv.ParseUint(m[3], 10, 64) //nolint:errcheck // the pattern sees to that
		who.Name, who.Session = m[1], control.Session{Agent: m[2], Stay: stay, First: m[4] == firstMark}
	}
	return volume, who
}

// resumes says whether a client goes on elsewhere, or again, by itself.
func resumes(who host.Client) bool { return who.Session != (control.Session{}) }

// outcome says what a client that resumes is told of an op that failed. What has only to
// be sent again, or elsewhere, is no error to it: it loses its connection. So does one
// whose op may have been applied, which does no harm a second time. (A client without a
// session that came back by itself would fence the one that took its name, and be fenced
// by it, in turn.)
func outcome(err error) error {
	for _, passes := range []error{forward.ErrClosed, forward.ErrSuperseded, forward.ErrAbandoned, mirror.ErrForgotten} {
		if errors.Is(err, passes) {
			return fmt.Errorf("%w: %w", nbd.ErrHangup, err)
		}
	}
	return err
}
