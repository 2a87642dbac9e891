package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

// fakeVolume says what a test wants.
type fakeVolume struct {
	mu       sync.Mutex
	state    mirror.Status
	progress []mirror.VerifyProgress
	result   mirror.VerifyResult
	err      error
	repair   bool          // what the last Verify was asked for
	asked    int           // how often Status was
	hold     chan struct{} // Verify waits for this or its context, if set
	ended    chan error    // gets what ended a Verify that was held
}

func (v *fakeVolume) Status() mirror.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	return v.state
}

func (v *fakeVolume) Verify(ctx context.Context, repair bool, progress func(mirror.VerifyProgress)) (mirror.VerifyResult, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.repair = repair
	for _, p := range v.progress {
		progress(p)
	}
	if v.hold == nil {
		return v.result, v.err
	}
	select {
	case <-v.hold:
		return v.result, v.err
	case <-ctx.Done():
		v.ended <- ctx.Err()
		return mirror.VerifyResult{}, ctx.Err()
	}
}

// held makes the next Verify wait after its first line.
func (v *fakeVolume) held() {
	v.progress = []mirror.VerifyProgress{{Replica: "b:1", Done: 1, Total: 2}}
	v.hold, v.ended = make(chan struct{}), make(chan error, 1)
}

// servedAdmin serves v at a path of its own until stop is called, or the test ends.
func servedAdmin(t *testing.T, v adminVolume) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "admin")
	stop, err := startAdmin(t.Context(), path, v, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return path, stop
}

// send is a request of a client that knows nothing of adminClient.
func send(t *testing.T, ctx context.Context, path, method, target string) *http.Response {
	t.Helper()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequestWithContext(ctx, method, "http://x"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestAdminAnswers(t *testing.T) {
	v := &fakeVolume{
		state:    mirror.Status{Volume: "vol", Size: 4096, Replicas: []mirror.ReplicaStatus{{Addr: "b:1", ETA: -1}}},
		progress: []mirror.VerifyProgress{{Replica: "b:1", Done: 4096, Total: 4096, Differing: 512}},
		result:   mirror.VerifyResult{Checked: 4096, Differs: []mirror.Difference{{Replica: "b:1", Off: 512, Len: 512, Repaired: true}}},
	}
	path, _ := servedAdmin(t, v)
	for _, tc := range []struct {
		method, target string
		code           int
		body           string
	}{
		{"GET", "/status", 200, `{"volume":"vol","size_bytes":4096,"epoch":0,"serving":false,"ready":false,"on_replica_loss":"","ack":"","in_flight":0,"watermark":0,"suspended_s":0,` +
			`"replicas":[{"member":0,"addr":"b:1","standing":"","in_sync":false,"left_bytes":0,"missed_bytes":0,"maybe_bytes":0,"copied_bytes":0,"compared_bytes":0,"rate_bytes_per_s":0,"eta_s":-1,"rtt_us":0}]}`},
		{"POST", "/verify?repair=true", 200, `{"progress":{"replica":"b:1","done_bytes":4096,"total_bytes":4096,"differing_bytes":512}}` + "\n" +
			`{"result":{"checked_bytes":4096,"differs":[{"replica":"b:1","offset":512,"length":512,"repaired":true}],"took_s":0}}`},
		{"POST", "/verify?repair=maybe", 400, `{"error":"repair=maybe: use true or false"}`},
		{"GET", "/verify", 405, "Method Not Allowed"},
		{"POST", "/status", 405, "Method Not Allowed"},
		{"GET", "/", 404, "404 page not found"},
	} {
		response := send(t, t.Context(), path, tc.method, tc.target)
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != tc.code || strings.TrimSpace(string(body)) != tc.body {
			t.Errorf("%s %s: %d %s\nwant %d %s", tc.method, tc.target, response.StatusCode, body, tc.code, tc.body)
		}
	}
	if !v.repair {
		t.Error("repair=true did not reach the volume")
	}
	send(t, t.Context(), path, "POST", "/verify").Body.Close()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.repair {
		t.Error("a verify without repair repairs")
	}
}

// firstLine waits until a verification is under way.
func firstLine(t *testing.T, response *http.Response) *bufio.Scanner {
	t.Helper()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"progress"`) {
		t.Fatalf("first line %q (%v), want progress at once", lines.Text(), lines.Err())
	}
	return lines
}

func TestAdminVerifyEndsWithItsClient(t *testing.T) {
	v := new(fakeVolume)
	v.held()
	path, _ := servedAdmin(t, v)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	firstLine(t, send(t, ctx, path, "POST", "/verify"))
	leave()
	if err := <-v.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended by %v, want by its client", err)
	}
}

func TestAdminVerifiesOnceAtATime(t *testing.T) {
	v := new(fakeVolume)
	v.held()
	path, _ := servedAdmin(t, v)
	lines := firstLine(t, send(t, t.Context(), path, "POST", "/verify"))
	if second := send(t, t.Context(), path, "POST", "/verify"); second.StatusCode != http.StatusConflict {
		t.Errorf("a second verify: %s, want 409", second.Status)
	}
	close(v.hold)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"result"`) {
		t.Errorf("last line %q, want the result", lines.Text())
	}
	if lines.Scan() {
		t.Errorf("%q after the last line", lines.Text())
	}
	if again := send(t, t.Context(), path, "POST", "/verify"); again.StatusCode != http.StatusOK {
		t.Errorf("a verify after the first: %s", again.Status)
	}
}

func TestAdminStopEndsWhatRuns(t *testing.T) {
	v := new(fakeVolume)
	v.held()
	path, stop := servedAdmin(t, v)
	lines := firstLine(t, send(t, t.Context(), path, "POST", "/verify"))
	stop()
	if err := <-v.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("verify was ended by %v", err)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "is being stopped") {
		t.Errorf("last line %q, want why it ended", lines.Text())
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestAdminTellsProgressNowAndThen(t *testing.T) {
	v := &fakeVolume{result: mirror.VerifyResult{Checked: 1000}}
	for i := range int64(1000) {
		v.progress = append(v.progress, mirror.VerifyProgress{Replica: "b:1", Done: i + 1, Total: 1000})
	}
	path, _ := servedAdmin(t, v)
	response := send(t, t.Context(), path, "POST", "/verify")
	var seen []api.VerifyLine
	for lines := json.NewDecoder(response.Body); ; {
		var line api.VerifyLine
		if lines.Decode(&line) != nil {
			break
		}
		seen = append(seen, line)
	}
	if n := len(seen); n < 3 || n > 500 || seen[0].Progress.Done != 1 || seen[n-2].Progress.Done != 1000 || seen[n-1].Result == nil {
		t.Errorf("%d lines, want the first step, the last, the result, and few between", n)
	}
}

// A recorder has no deadline to set: it is like a client that takes nothing.
func TestAdminGivesUpAClientThatTakesNothing(t *testing.T) {
	ctx, gone := context.WithCancel(t.Context())
	api.NewLines(httptest.NewRecorder(), gone).Progress(mirror.VerifyProgress{Done: 1, Total: 2})
	if ctx.Err() == nil {
		t.Error("the work goes on for nobody")
	}
}

func TestAdminSocket(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	start := func(name string) (path string, err error) {
		path = filepath.Join(dir, name)
		stop, err := startAdmin(t.Context(), path, new(fakeVolume), log)
		if err == nil {
			t.Cleanup(stop)
		}
		return path, err
	}
	path, err := start("fresh")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v (%v), want a socket for its user only", info.Mode(), err)
	}
	if _, err := start("fresh"); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("on a socket that is served: %v", err)
	}
	leaveDeadSocket(t, filepath.Join(dir, "dead"))
	if _, err := start("dead"); err != nil {
		t.Errorf("on a socket that a killed process left: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, hint := range map[string]string{
		"file": "not a socket", "missing/sock": "create its directory", strings.Repeat("x", 200): "at most 107 bytes",
	} {
		if _, err := start(name); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("on %.20s: %v, want a hint: %s", name, err, hint)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "precious" {
		t.Errorf("a file in the way holds %q now (%v)", text, err)
	}
}

// leaveDeadSocket makes what a killed process leaves.
func leaveDeadSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
}

func TestAdminEndsWithItsContext(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	ln, err := api.Listen(filepath.Join(t.TempDir(), "admin"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serveAdmin(ctx, ln, new(fakeVolume), slog.New(slog.DiscardHandler)) }()
	end()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("a wanted end is %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still serving")
	}
}
