package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"lockstep/mirror"
)

// errUnknown: the checker did not find out in time whether a history is right.
var errUnknown = errors.New("the checker gave up")

// Stats are figures of one run or of many.
type Stats struct {
	Seeds      int
	Virtual    time.Duration
	Reads      int // with an answer
	Writes     int // acknowledged, zeroes among them
	Flushes    int // acknowledged
	Lost       int // of writes, those whose outcome is unknown
	Checked    int // parts of the history of single sectors
	Promotions int
	Losses     int // promotions of copies that had lost power
	Resyncs    int // members that came back in sync
	Elections  int // of the group's leader
	Handovers  int
	Forced     int // failovers
	Attached   int // generations of clients that came to a node
	Faults     [faultKinds]int
	Violations int
	Unknown    int // of them, those where the checker gave up
}

func (s *Stats) count(r *record) {
	switch {
	case r.kind == mirror.Read && r.acked:
		s.Reads++
	case r.kind == mirror.Flush && r.acked:
		s.Flushes++
	case r.acked:
		s.Writes++
	case r.kind == mirror.Write || r.kind == mirror.Zero:
		s.Lost++
	}
}

// Add adds the figures of another run.
func (s *Stats) Add(o Stats) {
	s.Seeds += o.Seeds
	s.Virtual += o.Virtual
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.Flushes += o.Flushes
	s.Lost += o.Lost
	s.Checked += o.Checked
	s.Promotions += o.Promotions
	s.Losses += o.Losses
	s.Resyncs += o.Resyncs
	s.Elections += o.Elections
	s.Handovers += o.Handovers
	s.Forced += o.Forced
	s.Attached += o.Attached
	s.Violations += o.Violations
	s.Unknown += o.Unknown
	for kind, n := range o.Faults {
		s.Faults[kind] += n
	}
}

// String is one line.
func (s *Stats) String() string {
	var faults []string
	for kind, n := range s.Faults {
		if n > 0 {
			faults = append(faults, fmt.Sprintf("%v %d", faultKind(kind), n))
		}
	}
	return fmt.Sprintf("seeds %d, virtual hours %.2f, reads %d, writes %d, flushes %d, unknown outcomes %d, sector ops checked %d, promotions %d (%d after power loss), resyncs %d, elections %d, handovers %d, forced failovers %d, clients attached %d, faults (%s), violations %d, checker unknown %d",
		s.Seeds, s.Virtual.Hours(), s.Reads, s.Writes, s.Flushes, s.Lost, s.Checked, s.Promotions, s.Losses, s.Resyncs, s.Elections, s.Handovers, s.Forced, s.Attached, strings.Join(faults, ", "), s.Violations, s.Unknown)
}

// Result is what a run came to.
type Result struct {
	Seed  uint64
	Span  time.Duration
	Stats Stats
	Wrong []string // violations, in the order in which they were found
}

// Replay is the command that repeats the run, with its trace.
func (r *Result) Replay() string {
	return fmt.Sprintf("go run ./mirror/sim/cmd -seed %d -for %v -v", r.Seed, r.Span)
}

func (c *cluster) result(seed uint64, span time.Duration) Result {
	c.stats.Seeds, c.stats.Virtual = 1, c.now
	if len(c.wrong) > 0 {
		c.stats.Violations = 1
	}
	return Result{seed, span, c.stats, c.wrong}
}
