// Command lockstep mirrors a block volume across sites, and measures what the
// distance between them costs. See README.md.
//
// It is thin: one file a subcommand, each of which turns flags into a call of
// the packages that do the work. The process exits with 0 when the command did
// what was asked, 1 when it failed and 2 when it was asked wrongly; a verdict is 3 or more.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"lockstep/cmd/lockstep/target"
)

const (
	exitOK      = 0
	exitFailure = 1
	exitMisuse  = 2
)

type cli struct {
	Node     nodeCmd     `cmd:"" help:"Take part in a cluster: keep replicas of volumes, vote, and serve every volume over NBD."`
	Volume   volumeCmd   `cmd:"" help:"Make, list, show, resize and delete volumes, and say which nodes have copies."`
	Cluster  clusterCmd  `cmd:"" help:"List, add and remove nodes, and say who votes."`
	Handover handoverCmd `cmd:"" help:"Make another node the primary of a volume, without losing anything."`
	Failover failoverCmd `cmd:"" help:"Make another copy the volume after the primary was lost."`
	Events   eventsCmd   `cmd:"" help:"Show what happened, when and why."`
	Attach   attachCmd   `cmd:"" help:"Make a volume, or any NBD export, a block device of this machine, and keep it one while nodes fail."`
	Detach   detachCmd   `cmd:"" help:"Give such a device up."`
	Serve    serveCmd    `cmd:"" help:"Serve one volume from two processes, without a cluster: the primary."`
	Replica  replicaCmd  `cmd:"" help:"Hold a replica of a volume for a serve elsewhere."`
	Status   statusCmd   `cmd:"" help:"Show how volumes stand: who is primary, who is in sync, and how far resync is."`
	Verify   verifyCmd   `cmd:"" help:"Compare the copies of a volume with its primary's, and repair them."`
	Sweep    sweepCmd    `cmd:"" help:"Measure write latency against distance and find the synchronous limit."`
	Drill    drillCmd    `cmd:"" help:"Break a cluster in every way, over and over, and check that nothing is lost."`
	Wan      wanCmd      `cmd:"" help:"Look at link profiles; put a link on an interface; clean up."`
	Version  versionCmd  `cmd:"" help:"Print version, commit and build."`
}

const description = `Synchronous block mirroring over distance, and the measuring of it.

Examples:
  A volume on one machine, then a client.
    lockstep node --name a --data /tmp/a --nbd unix:/tmp/a.nbd &
    sleep 1; lockstep volume create vol --size 1GiB --on a --admin /tmp/a
    nbdinfo 'nbd+unix:///vol?socket=/tmp/a.nbd'

  On three, so that any one can be lost: see lockstep node --help. Then
    lockstep volume create vol --size 1GiB --on a,b --node 10.0.0.1:7800
    lockstep status --watch --node 10.0.0.1:7800
    lockstep handover vol --to b --node 10.0.0.1:7800

  How does write latency grow with distance, and where does it cross 2 ms?
    lockstep sweep --budget 2ms

  What do 100 km cost before any software runs?
    lockstep wan delay --km 100

Exit status: 0 done, 1 it failed, 2 it was asked wrongly; 3 status: something is
degraded; 4 verify: copies differed;
5 detach: the device is in use.`

// misuse is an error that the caller can mend by calling differently.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	parser, err := newParser(&cli{})
	if err != nil {
		panic(err) // the struct above is wrong: a bug, not a condition
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		return report(misuse{err}, helpFor(err))
	}
	ctx, stop := interruptible()
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	return report(kctx.Run(), kctx.Selected().FullPath())
}

func newParser(commands *cli) (*kong.Kong, error) {
	return kong.New(commands,
		kong.Name("lockstep"),
		kong.Description(description),
		kong.Vars{"targets": strings.Join(target.Names(), ", ")},
		kong.Configuration(loadConfigFile),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoAppDescFormat: true}),
	)
}

// report says in one line what went wrong, if anything did, and returns the
// exit code for it. The command named in help can say what would have been right.
func report(err error, help string) int {
	var answer verdict
	switch {
	case errors.As(err, &answer):
		return int(answer)
	case err == nil:
		return exitOK
	case errors.As(err, new(misuse)):
		fmt.Fprintf(os.Stderr, "lockstep: %v (see %s --help)\n", err, help)
		return exitMisuse
	default:
		fmt.Fprintf(os.Stderr, "lockstep: %v\n", err)
		return exitFailure
	}
}

// helpFor names the most specific command that the arguments of a parse error reached.
func helpFor(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context.Selected() != nil {
		return parse.Context.Selected().FullPath()
	}
	return "lockstep"
}

// interruptible returns a context that the first SIGINT or SIGTERM ends, so
// that a command can clean up. The second kills the process at once: whoever
// presses Ctrl-C twice does not want to wait for the clean-up that hangs.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
