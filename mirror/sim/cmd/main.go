// Command cmd runs the simulator of package sim: one seed to look at, or many to
// find one that is wrong.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"lockstep/mirror/sim"
)

const help = `Simulates whole clusters of lockstep, with faults, at virtual time.

One seed, again, with everything that happened in it:
  go run ./mirror/sim/cmd -seed 7 -for 10m -v

Many seeds, to find one that is wrong; the last line has the figures:
  go run ./mirror/sim/cmd -seeds 500 -from 1 -for 10m

The same seed and -for give the same run, byte for byte, on every machine, as long as
the code is the same. What is wrong is printed with the command that repeats it, and
the exit code is 1; it is 2 if the command line makes no sense.

`

// job is what the command line asks for.
type job struct {
	seed    uint64
	seeds   int
	from    uint64
	span    time.Duration
	workers int
	verbose bool
}

func main() {
	j, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !j.run(os.Stdout) {
		os.Exit(1)
	}
}

func parse(args []string, out io.Writer) (j job, err error) {
	f := flag.NewFlagSet("cmd", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, help)
		f.PrintDefaults()
	}
	f.Uint64Var(&j.seed, "seed", 1, "the seed of a single run")
	f.IntVar(&j.seeds, "seeds", 0, "how many seeds to run, from -from on, instead of a single one")
	f.Uint64Var(&j.from, "from", 1, "the first of many seeds")
	f.DurationVar(&j.span, "for", 10*time.Minute, "virtual time of a run, before all faults end")
	f.IntVar(&j.workers, "workers", runtime.NumCPU(), "how many seeds to run at a time")
	f.BoolVar(&j.verbose, "v", false, "print the plan of faults and everything that happens; for a single seed")
	if err := f.Parse(args); err != nil {
		return j, err
	}
	switch {
	case f.NArg() > 0:
		return j, fmt.Errorf("%q is not a flag; see -help", f.Arg(0))
	case j.seeds < 0 || j.workers < 1 || j.span <= 0:
		return j, errors.New("-seeds, -workers and -for are positive; see -help")
	case j.seeds > 1 && j.verbose:
		return j, errors.New("-v is for a single seed: say which with -seed")
	}
	return j, nil
}

// run says whether nothing was wrong.
func (j *job) run(out io.Writer) bool {
	began := time.Now()
	var total sim.Stats
	each := func(r sim.Result) {
		total.Add(r.Stats)
		for _, wrong := range r.Wrong {
			fmt.Fprintf(out, "seed %d, %s\n", r.Seed, wrong)
		}
		if len(r.Wrong) > 0 {
			fmt.Fprintf(out, "to repeat it: %s\n", r.Replay())
		}
	}
	if j.seeds > 0 {
		j.many(each)
	} else {
		each(j.one(out))
	}
	fmt.Fprintf(out, "%v, real time %v\n", &total, time.Since(began).Round(time.Millisecond))
	return total.Violations == 0
}

func (j *job) one(out io.Writer) sim.Result {
	if !j.verbose {
		return sim.Run(j.seed, j.span, nil)
	}
	trace := bufio.NewWriterSize(out, 1<<16)
	defer trace.Flush()
	return sim.Run(j.seed, j.span, trace)
}

func (j *job) many(each func(sim.Result)) {
	next, results := make(chan uint64), make(chan sim.Result)
	var workers sync.WaitGroup
	for range j.workers {
		workers.Go(func() {
			for seed := range next {
				results <- sim.Run(seed, j.span, nil)
			}
		})
	}
	go func() {
		for i := range j.seeds {
			next <- j.from + uint64(i)
		}
		close(next)
		workers.Wait()
		close(results)
	}()
	for r := range results {
		each(r)
	}
}
