package api

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestClientHints(t *testing.T) {
	dead := filepath.Join(t.TempDir(), "dead")
	ln, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	for path, hint := range map[string]string{
		dead:            "the process has ended",
		dead + ".no":    "is lockstep node running",
		dead + "/below": "",
	} {
		_, err := Unix(path).Ask(t.Context(), http.MethodGet, "/status", nil)
		if err == nil || !strings.Contains(err.Error(), hint) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: want %s and %q", err, path, hint)
		}
	}
	if hint := dialHint(&os.PathError{Op: "dial", Err: syscall.EACCES}); !strings.Contains(hint, "root") {
		t.Errorf("no hint for a socket of another user: %q", hint)
	}
}

func TestClientTellsWhyItWasRefused(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"there is no volume \"x\""}`: `there is no volume "x"`,
		"a web server's page":                  "is a lockstep node of this version there?",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(body))
		}))
		client := TCP(server.Listener.Addr().String())
		err := client.Get(t.Context(), http.MethodGet, "/volumes/x", nil, nil)
		client.Close()
		server.Close()
		if refused, ok := err.(*Refused); !ok || refused.Code != http.StatusNotFound || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want a refusal: %s", err, want)
		}
	}
}
