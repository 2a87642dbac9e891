package main

import (
	"errors"
	"flag"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, args := range []string{"-seeds 0 -v", "-seed 7 -for 1m", "-seeds 5 -from 3 -workers 1"} {
		if _, err := parse(strings.Fields(args), io.Discard); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, args := range []string{"7", "-seeds -1", "-workers 0", "-for 0s", "-seeds 2 -v", "-what"} {
		if j, err := parse(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%s is taken: %+v", args, j)
		}
	}
	var help strings.Builder
	if _, err := parse([]string{"-help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-seeds 500") {
		t.Errorf("-help: %v, %q", err, help.String())
	}
}

// TestRuns: a trace is readable and ends with the figures, and the number of
// workers changes nothing but the time.
func TestRuns(t *testing.T) {
	var trace strings.Builder
	j := job{seed: 2, span: 20 * time.Second, workers: 1, verbose: true}
	if !j.run(&trace) {
		t.Error(trace.String())
	}
	for _, part := range []string{"plan ", "group ", "node 0 ", "client ", "seeds 1, "} {
		if !strings.Contains(trace.String(), part) {
			t.Errorf("the trace has no %q", part)
		}
	}
	figures := func(workers int) string {
		var out strings.Builder
		j := job{seeds: 4, from: 10, span: 20 * time.Second, workers: workers}
		if !j.run(&out) {
			t.Error(out.String())
		}
		return regexp.MustCompile(`, real time .*`).ReplaceAllString(out.String(), "")
	}
	if one, two := figures(1), figures(2); one != two || !strings.HasPrefix(one, "seeds 4, ") {
		t.Errorf("with one worker:\n%swith two:\n%s", one, two)
	}
}
