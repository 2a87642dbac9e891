// Command powercut writes what a power cut must not take, and replays the log of a
// disk to see that none would have: see package powercut and scripts/lab/powercut.sh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const help = `Cuts the power at every flush of a disk that dm-log-writes (device LOGGED) logs to
LOG, and looks whether what was promised is there.

A store, on a file system on LOGGED, is written; after each sync the log gets a mark:
  powercut write -store /mnt/vol -size 4194304 -ops 400 -dm LOGGED

The same for an attached volume, whose copies are on the disks A and B:
  powercut write -device /dev/nbd0 -ops 400 -dm A,B

Then, with LOGGED removed, so that the log is whole: what would have been found?
  powercut check -log LOG -disk-size 67108864 -store vol -size 4194304 -ops 400 -intents

-seed, -ops and -size are the same for both. The last line is JSON. Exit status: 0 all that
was promised is there, 1 not, or it could not be done, 2 asked wrongly.

`

// errMisuse is wrapped by what is wrong with the command line.
var errMisuse = errors.New("see powercut -help")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errMisuse):
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "write":
		return write(ctx, args, out)
	case "check":
		return check(ctx, args, out)
	case "-h", "-help", "--help":
		fmt.Fprint(out, help)
		return nil
	}
	return fmt.Errorf("%q is neither write nor check: %w", command, errMisuse)
}

// plan is what both commands are told alike.
type plan struct {
	seed, ops uint64
	size      int64
}

// flags returns a set with those of the plan in it.
func (p *plan) flags(name string, out io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, help)
		f.PrintDefaults()
	}
	f.Uint64Var(&p.seed, "seed", 1, "what is written follows from it")
	f.Uint64Var(&p.ops, "ops", 400, "how many operations")
	f.Int64Var(&p.size, "size", 4<<20, "the volume's size in bytes, a multiple of 512")
	return f
}

func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", err, errMisuse)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: %w", f.Arg(0), errMisuse)
	}
	return nil
}
