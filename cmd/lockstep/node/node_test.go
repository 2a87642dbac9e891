package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
	"lockstep/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alone is a node that is a cluster of its own.
type alone struct {
	*testing.T
	dir    string
	client *api.Client
	stop   func() error

	mu   sync.Mutex
	told []string // the service manager
}

func (a *alone) socket() string { return filepath.Join(a.dir, "nbd") }

func startAlone(t *testing.T, dir string) *alone {
	t.Helper()
	a := &alone{T: t, dir: dir}
	up := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			Name: "a", Dir: dir, Listen: "127.0.0.1:0", NBD: []string{"unix:" + a.socket()}, Log: slog.New(slog.DiscardHandler),
			Notify: func(state string) error {
				a.mu.Lock()
				defer a.mu.Unlock()
				if !slices.Contains(a.told, state) {
					a.told = append(a.told, state)
				}
				if state == "READY=1" {
					close(up)
				}
				return nil
			},
			Watchdog: 3 * time.Millisecond,
		})
	}()
	a.client = api.Unix(filepath.Join(dir, AdminSocket))
	a.stop = sync.OnceValue(func() error {
		a.client.Close()
		cancel()
		return <-ended
	})
	t.Cleanup(func() { a.stop() })
	select {
	case <-up:
	case err := <-ended:
		ended <- err
		t.Fatalf("did not start: %v", err)
	}
	return a
}

func (a *alone) ask(method, path string, ask, into any) error {
	return a.client.Get(a.Context(), method, path, ask, into)
}

// volume makes one, and waits until it is served.
func (a *alone) volume(name string) {
	a.Helper()
	if err := a.ask(http.MethodPost, "/volumes", api.Create{Name: name, Size: 1 << 20, On: []string{"a"}}, nil); err != nil {
		a.Fatal(err)
	}
	a.led(name)
}

func (a *alone) led(name string) *api.VolumeStatus {
	a.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var s api.Status
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		err := a.ask(http.MethodGet, "/status?volume="+name, nil, &s)
		if err == nil && s.Volumes[0].Standing != nil && s.Volumes[0].Standing.Ready {
			return &s.Volumes[0]
		}
	}
	a.Fatalf("volume %s is not served: %+v", name, s)
	return nil
}

func TestANodeAlone(t *testing.T) {
	dir := t.TempDir()
	a := startAlone(t, dir)
	a.volume("vol")
	c, err := nbd.Dial(t.Context(), "nbd+unix:///vol?socket="+a.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteAt([]byte("kept"), 4096); err != nil {
		t.Fatal(err)
	}
	var h api.Health
	if err := a.ask(http.MethodGet, "/healthz", nil, &h); err != nil || !h.OK || h.Node != "a" {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Run(t.Context(), Config{Name: "b", Dir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "another lockstep node") {
		t.Errorf("a second node in the same directory: %v", err)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"READY=1", "WATCHDOG=1", "STOPPING=1"}; !slices.Equal(a.told, want) {
		t.Errorf("the service manager was told %v, want %v", a.told, want)
	}
	if _, err := os.Lstat(filepath.Join(dir, AdminSocket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	a = startAlone(t, dir) // at another port
	a.led("vol")
	c, err = nbd.Dial(t.Context(), "nbd+unix:///vol?socket="+a.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 4)
	if _, err := c.ReadAt(got, 4096); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatIsAskedWrongly(t *testing.T) {
	a := startAlone(t, t.TempDir())
	a.volume("vol")
	for _, tc := range []struct {
		method, path string
		ask          any
		code         int
		why          string
	}{
		{"GET", "/volumes/x", nil, 404, "no volume"},
		{"GET", "/status?volume=x", nil, 404, "no volume"},
		{"DELETE", "/nodes/x", nil, 404, "no node"},
		{"POST", "/volumes", api.Create{Name: "../x", Size: 512, On: []string{"a"}}, 400, "a volume's name"},
		{"POST", "/volumes", api.Create{Name: "x@y", Size: 512, On: []string{"a"}}, 400, "a volume's name"},
		{"POST", "/volumes", api.Create{Name: "x", Size: 100, On: []string{"a"}}, 400, "multiple of 512"},
		{"POST", "/volumes", api.Create{Name: "x", Size: 512}, 400, "on which nodes"},
		{"POST", "/volumes", api.Create{Name: "x", Size: 512, On: []string{"z"}}, 409, `"z"`},
		{"POST", "/volumes", api.Create{Name: "vol", Size: 512, On: []string{"a"}}, 409, "exists"},
		{"POST", "/volumes", map[string]int{"sice": 1}, 400, "sice"},
		{"PUT", "/volumes/vol/size", api.Resize{Size: 512}, 400, "can only grow"},
		{"PUT", "/volumes/vol/policy", control.Policy{Ack: "never"}, 400, "never"},
		{"POST", "/volumes/vol/handover", api.Handover{To: "z"}, 409, "no copy in sync"},
		{"POST", "/volumes/vol/failover", api.Failover{To: "z"}, 409, "no replica"},
		{"POST", "/volumes/vol/failover", api.Failover{To: "a", AcceptDataLoss: true}, 409, "is the primary"},
		{"POST", "/volumes/vol/verify?repair=maybe", nil, 400, "true or false"},
		{"POST", "/verify", nil, 400, "which volume"},
		{"GET", "/events?after=x", nil, 400, "after"},
		{"GET", "/events?wait=x", nil, 400, "wait"},
		{"DELETE", "/nodes/a", nil, 409, "no majority"},
	} {
		err := a.ask(tc.method, tc.path, tc.ask, nil)
		refused, ok := errors.AsType[*api.Refused](err)
		if !ok || refused.Code != tc.code || !strings.Contains(refused.Why, tc.why) {
			t.Errorf("%s %s: %v, want %d with %q", tc.method, tc.path, err, tc.code, tc.why)
		}
	}
}

func TestPolicyFieldsThatAreNotGivenStay(t *testing.T) {
	a := startAlone(t, t.TempDir())
	a.volume("vol")
	var v control.Volume
	for _, policy := range []control.Policy{{OnLoss: "suspend"}, {Failover: "manual"}} {
		err := a.ask("PUT", "/volumes/vol/policy", policy, &v)
		for n := 0; n < 10 && err != nil && strings.Contains(err.Error(), "try again"); n++ { // a busy machine's own changes come between
			err = a.ask("PUT", "/volumes/vol/policy", policy, &v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := control.Policy{Ack: "written", Failover: "manual", OnIsolation: "suspend", OnLoss: "suspend", Lease: control.DefaultLease}
	if v.Policy != want {
		t.Errorf("%+v, want %+v", v.Policy, want)
	}
}

func TestEventsAreWaitedFor(t *testing.T) {
	a := startAlone(t, t.TempDir())
	a.volume("one")
	var events []control.Event
	if err := a.ask("GET", "/events?volume=one", nil, &events); err != nil || len(events) < 2 || events[0].What != "created on a" {
		t.Fatalf("%+v, %v", events, err)
	}
	last := events[len(events)-1].Index
	type answer struct {
		events []control.Event
		err    error
	}
	waited := make(chan answer)
	go func() {
		var got answer
		got.err = a.ask("GET", "/events?volume=two&wait=20s", nil, &got.events)
		waited <- got
	}()
	a.volume("two")
	if got := <-waited; got.err != nil || len(got.events) == 0 || got.events[0].Volume != "two" || got.events[0].Index <= last {
		t.Errorf("%+v", got)
	}
	if err := a.ask("GET", "/events?volume=none&wait=1ms", nil, &events); err != nil || len(events) != 0 {
		t.Errorf("%+v, %v, want none in time", events, err)
	}
}

func TestMetrics(t *testing.T) {
	a := startAlone(t, t.TempDir())
	a.volume("vol")
	c, err := nbd.Dial(t.Context(), "nbd+unix:///vol?socket="+a.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`lockstep_request_seconds_count{op="write",volume="vol"} 1`, `lockstep_write_local_seconds_count{volume="vol"} 1`,
		`lockstep_write_total_seconds_count{volume="vol"} 1`, `lockstep_volume_role{role="leading",volume="vol"} 1`, `lockstep_raft_leader 1`,
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C { // where the time went is told after the write
		text := a.metrics()
		missing := slices.IndexFunc(want, func(line string) bool { return !strings.Contains(text, line+"\n") })
		if missing < 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("/metrics lacks %s:\n%s", want[missing], text)
		}
	}
	if err := a.ask("DELETE", "/volumes/vol", nil, nil); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); strings.Contains(a.metrics(), `volume="vol"`); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("a volume that was deleted is still in /metrics")
		}
	}
}

func (a *alone) metrics() string {
	a.Helper()
	response, err := a.client.Ask(a.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		a.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, response.Body); err != nil {
		a.Fatal(err)
	}
	return text.String()
}

func TestStatusIsOneObject(t *testing.T) {
	a := startAlone(t, t.TempDir())
	a.volume("vol")
	var raw struct {
		Node    string
		Group   struct{ Leader string }
		Volumes []map[string]json.RawMessage
	}
	if err := a.ask("GET", "/status", nil, &raw); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "epoch", "primary", "replicas", "policy", "role", "standing"} {
		if _, ok := raw.Volumes[0][key]; !ok {
			t.Errorf("a volume's status has no %q", key)
		}
	}
	if raw.Node != "a" || raw.Group.Leader != "a" {
		t.Errorf("%+v", raw)
	}
}
