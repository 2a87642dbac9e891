package sim

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// TestSeeds runs a few clusters; the command runs many.
func TestSeeds(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := Run(seed, 90*time.Second, nil)
			for _, wrong := range r.Wrong {
				t.Error(wrong)
			}
			if len(r.Wrong) > 0 {
				t.Log("to repeat it:", r.Replay())
			}
			if r.Stats.Reads == 0 || r.Stats.Writes == 0 || r.Stats.Flushes == 0 || r.Stats.Checked == 0 {
				t.Errorf("a run in which nothing happened shows nothing: %v", &r.Stats)
			}
		})
	}
}

// TestDeterminism: a seed is worth something only if it repeats what it found.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		var first, second bytes.Buffer
		Run(seed, time.Minute, &first)
		Run(seed, time.Minute, &second)
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("seed %d: the second run differs from the first at line %q", seed, difference(first.Bytes(), second.Bytes()))
		}
	}
}

func difference(a, b []byte) []byte {
	second := bytes.Split(b, []byte("\n"))
	for i, line := range bytes.Split(a, []byte("\n")) {
		if i >= len(second) || !bytes.Equal(line, second[i]) {
			return line
		}
	}
	return nil
}

// TestFaultsHappen: over some seeds every kind of fault is begun, volumes come back
// after a total loss of power, and members rejoin.
func TestFaultsHappen(t *testing.T) {
	var total Stats
	for seed := uint64(100); seed < 106; seed++ {
		r := Run(seed, 3*time.Minute, nil)
		total.Add(r.Stats)
		for _, wrong := range r.Wrong {
			t.Errorf("seed %d: %s", seed, wrong)
		}
	}
	for kind, n := range total.Faults {
		if n == 0 {
			t.Errorf("no %v", faultKind(kind))
		}
	}
	if total.Promotions < 20 || total.Losses == 0 || total.Resyncs < 20 || total.Lost == 0 {
		t.Errorf("too little happened: %v", &total)
	}
}
