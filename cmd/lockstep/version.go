package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
)

// Stamped by scripts/build.sh through -ldflags -X. Without the stamp they come from
// what the go command recorded, which is nothing under -buildvcs=false.
var (
	version string
	commit  string
)

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// buildFacts is what a report needs to name the binary that it was made with.
type buildFacts struct {
	Version string            `json:"version"`
	Commit  string            `json:"commit"`
	Go      string            `json:"go"`
	OS      string            `json:"os"`
	Arch    string            `json:"arch"`
	Modules map[string]string `json:"modules"`
}

// thisBuild describes the running binary. Version and commit are "unknown" if
// it was built outside a git tree.
func thisBuild() buildFacts {
	b := buildFacts{
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Modules: map[string]string{},
	}
	vcs := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			b.Modules[m.Path] = actual(m).Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				vcs = s.Value
			}
		}
	}
	b.Version = cmp.Or(version, "unknown")
	b.Commit = cmp.Or(commit, vcs, "unknown")
	return b
}

// actual follows a replace directive to the module that was compiled in.
func actual(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func (v versionCmd) Run() error {
	b := thisBuild()
	if v.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(b)
	}
	fmt.Printf("lockstep %s (commit %s, %s, %s/%s)\n", b.Version, b.Commit, b.Go, b.OS, b.Arch)
	for _, path := range slices.Sorted(maps.Keys(b.Modules)) {
		fmt.Printf("  %s %s\n", path, b.Modules[path])
	}
	return nil
}
