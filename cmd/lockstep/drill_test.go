package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lockstep/cmd/lockstep/drill"
)

// TestDrill kills a primary for real, and hands over.
func TestDrill(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	result := filepath.Join(t.TempDir(), "result.json")
	out := runLockstep(t, []string{"drill", "--rounds=2", "--kinds=kill,handover", "--hold=500ms", "--size=1MiB", "--json=" + result})
	text, err := os.ReadFile(result)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var rows []drill.Row
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Kind != drill.Kill || rows[1].Kind != drill.Handover {
		t.Fatalf("%+v\n%s", rows, out)
	}
	for _, r := range rows {
		if r.Rounds != 1 || r.Lost+r.Differing+r.TwoPrimaries != 0 || r.StallMax <= 0 {
			t.Errorf("%+v\n%s", r, out)
		}
	}
	if strings.Contains(out, "exit") || strings.Contains(out, "what the drill and the nodes said") {
		t.Errorf("a good drill keeps its logs, or fails:\n%s", out)
	}
}

func TestDrillRefusals(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("anybody else enters a user namespace first, which a test binary cannot")
	}
	for _, args := range []string{"--kinds=flood", "--rounds=0", "--size=1000000"} {
		if out := runLockstep(t, []string{"drill", args}); !strings.Contains(out, "exit 2") || !strings.Contains(out, "drill") {
			t.Errorf("%s: %s", args, out)
		}
	}
}
