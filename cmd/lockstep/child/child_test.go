package child

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProcessThatIgnoresSIGTERMIsKilled(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start("stubborn", log, exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.01; done`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitOutput(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	err = p.Stop(t.Context(), 20*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "was killed") || !strings.Contains(err.Error(), "ready") {
		t.Errorf("error %v", err)
	}
	if err := p.Cmd.Process.Signal(syscall.Signal(0)); err == nil {
		t.Error("it lives on")
	}
}
