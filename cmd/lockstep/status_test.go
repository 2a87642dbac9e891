package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

// TestAdminScripts runs real lockstep processes against an admin socket, $ADMIN,
// whose volume is what the script says: what people and programs read is golden,
// and so are exit codes. Verbs:
//
//	status    {a mirror.Status}              how the volume stands from here on
//	verifies  {a mirror.VerifyResult}        what a verification finds; error=... as an
//	                                         argument ends it
//	lockstep  ARGUMENTS                      a process; its output, and exit code unless 0
//
// Re-bless with go test ./cmd/lockstep -run AdminScripts -rewrite.
func TestAdminScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/admin", func(t *testing.T, script string) {
		v := new(fakeVolume)
		path, _ := servedAdmin(t, v)
		datadriven.RunTest(t, script, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "status":
				var state mirror.Status
				parse(t, d, &state)
				v.mu.Lock()
				defer v.mu.Unlock()
				v.state = state
			case "verifies":
				var result mirror.VerifyResult
				var err error
				parse(t, d, &result)
				if d.HasArg("error") {
					var why string
					d.ScanArgs(t, "error", &why)
					err = errors.New(why)
				}
				v.mu.Lock()
				defer v.mu.Unlock()
				v.result, v.err = result, err
			case "lockstep":
				out := runLockstep(t, strings.Fields(strings.ReplaceAll(d.Input, "$ADMIN", path)))
				return strings.ReplaceAll(out, path, "$ADMIN")
			default:
				t.Fatalf("%s: unknown verb %q", d.Pos, d.Cmd)
			}
			return ""
		})
	})
}

func parse(t *testing.T, d *datadriven.TestData, v any) {
	t.Helper()
	in := json.NewDecoder(strings.NewReader(d.Input))
	in.DisallowUnknownFields()
	if err := in.Decode(v); err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
}

func TestStatusWatch(t *testing.T) {
	v := &fakeVolume{state: mirror.Status{Volume: "vol", Serving: true, Ready: true,
		Replicas: []mirror.ReplicaStatus{{Standing: standingInSync, InSync: true}}}}
	path, stop := servedAdmin(t, v)
	next := make(chan time.Time)
	watch := func(ctx context.Context, c statusCmd, out *strings.Builder) <-chan error {
		client, ended := api.Unix(path), make(chan error, 1)
		go func() {
			defer client.Close()
			ended <- c.watch(ctx, client, out, next)
		}()
		return ended
	}
	t.Run("until interrupted", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		var out strings.Builder
		ended := watch(ctx, statusCmd{asking: asking{JSON: true}, Watch: true}, &out)
		next <- time.Time{}
		next <- time.Time{} // taken only after the second look
		interrupt()
		if err := <-ended; err != nil {
			t.Errorf("an interrupt is %v, want what was seen last", err)
		}
		v.mu.Lock()
		asked := v.asked // also of the look that the interrupt ended
		v.mu.Unlock()
		if n := strings.Count(out.String(), "\n"); n < 2 || n > 3 || asked < n {
			t.Errorf("%d lines, asked %d times, want a line a look", n, asked)
		}
	})
	t.Run("degraded", func(t *testing.T) {
		v.mu.Lock()
		v.state.Ready = false
		v.mu.Unlock()
		ctx, interrupt := context.WithCancel(t.Context())
		var out strings.Builder
		ended := watch(ctx, statusCmd{}, &out)
		next <- time.Time{}
		interrupt()
		if err := <-ended; !errors.Is(err, exitDegraded) {
			t.Errorf("%v, want the exit code of what was seen last", err)
		}
	})
	t.Run("until serve ends", func(t *testing.T) {
		var out strings.Builder
		ended := watch(t.Context(), statusCmd{}, &out)
		next <- time.Time{}
		stop()
		select {
		case next <- time.Time{}:
		case err := <-ended:
			ended = ready(err)
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "is lockstep node running") {
			t.Errorf("%v, want that nobody is there", err)
		}
	})
}

func ready(err error) <-chan error {
	c := make(chan error, 1)
	c <- err
	return c
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB",
		1 << 30: "1.0 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestResyncTextIsShort(t *testing.T) {
	r := mirror.ReplicaStatus{Left: 1 << 60, Rate: 1, ETA: 1 << 60}
	if _, _, eta := resyncText(r); eta != "1000h0m0s" {
		t.Errorf("an ETA of %v s is %q: it does not fit a duration", r.ETA, eta)
	}
}
