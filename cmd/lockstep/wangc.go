package main

import (
	"context"
	"fmt"

	"lockstep/wanem/sites"
)

type wanGCCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by lockstep wan gc --help.
func (wanGCCmd) Help() string {
	return `A sweep that was killed leaves its scratch directory; its namespaces, links and
processes the kernel has removed already, but for what those processes had started
themselves. The next sweep does this too. What belongs to a living process is left
alone. The volume's copies, in --out/volume, stay: sweep --resume uses and then
removes them.`
}

// Run removes what dead runs left and lists it.
func (c wanGCCmd) Run(ctx context.Context) error {
	removed, err := sites.GC(ctx)
	if c.JSON {
		if removed == nil {
			removed = []string{}
		}
		if e := printJSON(map[string][]string{"removed": removed}); e != nil {
			return e
		}
		return err
	}
	for _, path := range removed {
		fmt.Println("removed", path)
	}
	if len(removed) == 0 && err == nil {
		fmt.Println("nothing to remove")
	}
	return err
}
