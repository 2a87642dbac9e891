package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/mirror/control"
)

// parseNode parses a node's flags as main does.
func parseNode(t *testing.T, args ...string) (*nodeCmd, error) {
	t.Helper()
	all := new(cli)
	parser, err := newParser(all)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append([]string{"node"}, args...))
	return &all.Node, err
}

const threeNodes = "a=10.0.0.1:7800,b=10.0.0.2:7800,w=10.0.0.3:7800"

func TestNodeFlags(t *testing.T) {
	for _, tc := range []struct {
		args  string
		wrong string
	}{
		{"--name a --listen 10.0.0.1:7800 --cluster " + threeNodes, ""},
		{"--name a", ""},
		{"--name a --listen :7800 --cluster " + threeNodes, ""}, // the cluster says where it is
		{"--name a --listen :7800", "--advertise"},
		{"--name a --listen 0.0.0.0:7800", "--advertise"},
		{"--name a --listen [::]:7800 --advertise h:7800", ""},
		{"--name a --listen h", "use HOST:PORT"},
		{"--name a/b", "--name"},
		{"--name a --cluster " + threeNodes, "no --listen"},
		{"--name a --listen h:1 --cluster a=h", "NAME=HOST:PORT"},
		{"--name a --listen h:1 --cluster a=h:1,a=h:2", "twice"},
		{"--name a --listen h:1 --cluster a=h:1,b=h:1", "twice"},
		{"--name a --listen h:1 --cluster h:1", "NAME=HOST:PORT"},
		{"--name a --nbd /tmp/x", "unix:PATH or tcp:HOST:PORT"},
		{"--name a --heartbeat 0s", "--heartbeat"},
		{"--name a --resync-max 1KiB", "--resync-max"},
		{"--name a --poll=-1s", "--poll"},
	} {
		c, err := parseNode(t, append(strings.Fields(tc.args), "--data", "d")...)
		if err != nil {
			t.Errorf("%s: %v", tc.args, err)
			continue
		}
		_, err = c.conf()
		if tc.wrong == "" && err != nil || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.wrong)
		}
	}
}

func TestNodeKnowsItselfInTheCluster(t *testing.T) {
	c, err := parseNode(t, "--name", "w", "--data", "d", "--listen", ":7800", "--witness", "--cluster", threeNodes)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := c.conf()
	want := []control.Peer{{Name: "a", Addr: "10.0.0.1:7800"}, {Name: "b", Addr: "10.0.0.2:7800"}, {Name: "w", Addr: "10.0.0.3:7800", Witness: true}}
	if err != nil || conf.Reach != "10.0.0.3:7800" || !slices.Equal(conf.Voters, want) {
		t.Errorf("%v, reached at %s, voters %+v", err, conf.Reach, conf.Voters)
	}
}

func TestNodeConfigFile(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "node.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := parseNode(t, "--config", file(`{"name": "b", "data": "/var/lib/lockstep", "listen": "10.0.0.2:7800",
		"nbd": ["unix:/a,b", "tcp::10809"], "cluster": ["a=10.0.0.1:7800", "b=10.0.0.2:7800"],
		"admin-tcp": "127.0.0.1:80", "resync_min": "8MiB", "heartbeat": "1s", "witness": true, "resync-share": 0.25}`),
		"--heartbeat", "2s")
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.Name != "b" || c.Data != "/var/lib/lockstep" || c.AdminTCP != "127.0.0.1:80" || !c.Witness:
	case !slices.Equal(c.NBD, []string{"unix:/a,b", "tcp::10809"}) || len(c.Cluster) != 2:
	case c.Floor != 8<<20 || c.Share != 0.25 || c.Heartbeat != 2*time.Second: // the command line wins
	default:
		for text, wrong := range map[string]string{
			`{"name": "b", "data": "d", "listne": "h:1"}`: `"listne" is no flag`,
			`{"config": "other"}`:                         `"config" is no flag`,
			`{"name": "b",}`:                              "JSON object",
			`{"heartbeat": "soon"}`:                       "heartbeat",
		} {
			if _, err := parseNode(t, "--config", file(text)); err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: %v, want %s", text, err, wrong)
			}
		}
		return
	}
	t.Errorf("%+v", c)
}

// The text that teaches has to work: the example of lockstep node --help is read as
// the file that it says it is.
func TestNodeHelpExampleIsReadAsAFile(t *testing.T) {
	help := nodeCmd{}.Help()
	from, to := strings.Index(help, "{"), strings.Index(help, "}")
	path := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(path, []byte(help[from:to+1]), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseNode(t, "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.conf(); err != nil {
		t.Error(err)
	}
}

func TestSystemdIsNotified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := systemdNotify("READY=1"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	for usec, want := range map[string]time.Duration{"": 0, "30000000": 30 * time.Second, "x": 0} {
		t.Setenv("WATCHDOG_USEC", usec)
		if got := systemdWatchdog(); got != want {
			t.Errorf("WATCHDOG_USEC=%s is %v", usec, got)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemdNotify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", path+".none")
	if err := systemdNotify("READY=1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with nobody there: %v", err)
	}
}
