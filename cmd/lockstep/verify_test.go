package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

func TestVerifyExitCodes(t *testing.T) {
	differs := &mirror.VerifyResult{Checked: 1, Differs: []mirror.Difference{{Len: 1, Repaired: true}}}
	for _, tc := range []struct {
		name   string
		result *mirror.VerifyResult
		err    error
		want   string
	}{
		{"equal", &mirror.VerifyResult{Checked: 1}, nil, ""},
		{"repaired", differs, nil, exitDiffers.Error()},
		{"nothing to compare", &mirror.VerifyResult{}, nil, "no replica"},
		{"early", differs, errors.New("lost"), "lost"},
		{"not begun", nil, errors.New("nobody"), "nobody"},
	} {
		var out strings.Builder
		err := new(verifyCmd).answer(&out, tc.result, tc.err)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if code := errors.As(err, new(verdict)); code != (tc.want == exitDiffers.Error()) {
			t.Errorf("%s: %v, a verdict: %v", tc.name, err, code)
		}
		if printed := out.Len() > 0; printed != (tc.result != nil && tc.result.Checked > 0) {
			t.Errorf("%s: printed %q", tc.name, out.String())
		}
	}
}

// What was found before it ended early must not be lost: it may have been repaired.
func TestVerifyTellsWhatItFoundBeforeTheError(t *testing.T) {
	v := &fakeVolume{result: mirror.VerifyResult{Checked: 7}, err: errors.New("replica b:1: lost")}
	path, _ := servedAdmin(t, v)
	client := api.Unix(path)
	defer client.Close()
	result, err := (&verifyCmd{Repair: true}).ask(t.Context(), client, func(mirror.VerifyProgress) {})
	if result == nil || result.Checked != 7 || err == nil || err.Error() != "replica b:1: lost" {
		t.Errorf("%+v, %v", result, err)
	}
	if !v.repair {
		t.Error("--repair did not reach the volume")
	}
}

func TestVerifyOfAServeThatGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	ln, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	killed := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		api.NewLines(w, func() {}).Progress(mirror.VerifyProgress{Replica: "b:1", Done: 1, Total: 2})
		panic(http.ErrAbortHandler) // closes the connection in the middle of the answer
	})}
	go killed.Serve(ln)
	defer killed.Close()
	client := api.Unix(path)
	defer client.Close()
	seen := 0
	_, err = new(verifyCmd).ask(t.Context(), client, func(mirror.VerifyProgress) { seen++ })
	if err == nil || !strings.Contains(err.Error(), "went away") || seen != 1 {
		t.Errorf("%v after %d lines, want that it went away", err, seen)
	}
}

func TestVerifyIsInterrupted(t *testing.T) {
	v := new(fakeVolume)
	v.held()
	path, _ := servedAdmin(t, v)
	client := api.Unix(path)
	defer client.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	_, err := new(verifyCmd).ask(ctx, client, func(mirror.VerifyProgress) { interrupt() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the interrupt", err)
	}
	if err := <-v.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the verification was ended by %v", err)
	}
}
