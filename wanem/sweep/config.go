package sweep

import (
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/wanem"
)

// Workloads that need no file.
const (
	Builtin = "builtin"
	Fio     = "fio"
	Pgbench = "pgbench"
)

// probeSizes are the sizes of the cold and after-idle writes: one that fits
// any initial window, and one that slow start would stretch.
var probeSizes = []int{4 << 10, 1 << 20}

// maxBlocks bounds the ledger of written blocks to 128 MiB of memory.
const maxBlocks = 1 << 24

// Config says what a sweep does. All fields are needed unless marked optional.
type Config struct {
	// Km are the distances, in any order, at least two.
	Km []float64
	// Profile turns km into delay. The zero value is plain fibre.
	Profile wanem.Profile

	// Workload is Builtin, Fio (a job made from the fields below), Pgbench (a
	// PostgreSQL whose clients are QueueDepth, each a transaction at a time) or the
	// path of an fio job file, which is passed through with ioengine and the volume
	// as defaults; BlockSize, QueueDepth and Rate then are the file's business.
	Workload string
	// FS is the file system for Pgbench: ext4 or xfs. Others need none.
	FS string
	// BlockSize is in bytes, a multiple of 512, at least 512.
	BlockSize int
	// QueueDepth is the number of writes in flight at most.
	QueueDepth int
	// Rate is in writes per second; 0 is a closed loop.
	Rate float64

	// WarmUp is load that is not measured; Duration is the measured window.
	WarmUp, Duration time.Duration
	// Repeats is the number of trials of each distance, at least 3.
	Repeats int
	// Idle is how long the volume rests before the after-idle writes;
	// 0 leaves cold and after-idle writes out.
	Idle time.Duration
	// Budgets are the latencies whose distance is wanted. Optional.
	Budgets []time.Duration
	// Seed fixes the order of trials and all random choices.
	Seed uint64

	// Out is the directory for everything that is written. It may hold an
	// earlier sweep only if Resume is set, and that one's parameters are the same.
	Out    string
	Resume bool
	// Progress gets a bar if it is a terminal, else a line a trial. Optional.
	Progress io.Writer
}

// Validate returns an error that names the field at fault and how to mend it.
func (c Config) Validate() error {
	checks := []struct {
		ok   bool
		what string
	}{
		{len(distances(c.Km)) >= 2, "km: at least two different distances are needed for a slope"},
		{c.BlockSize >= 512 && c.BlockSize%512 == 0, "bs: use a multiple of 512 bytes"},
		{c.BlockSize <= 32<<20, "bs: use at most 32MiB, the largest request of an NBD client"},
		{c.QueueDepth >= 1 && c.QueueDepth <= 1024, "qd: use 1 to 1024"},
		{c.Rate >= 0 && c.Rate <= 1e6, "rate: use writes per second up to 1000000, or 0 for a closed loop"},
		{c.Duration >= 100*time.Millisecond, "duration: use at least 100ms a trial"},
		{c.WarmUp >= 0, "warm-up: cannot be negative"},
		{c.Repeats >= 3, "repeats: use at least 3, or there is no confidence interval"},
		{c.Idle >= 0, "idle: cannot be negative"},
		{c.Out != "", "out: name a directory"},
	}
	for _, check := range checks {
		if !check.ok {
			return fmt.Errorf("sweep %s", check.what)
		}
	}
	for _, budget := range c.Budgets {
		if budget <= 0 {
			return fmt.Errorf("sweep budget: %v is no latency: use a list as 1ms,2ms,5ms", budget)
		}
	}
	for _, km := range c.Km {
		if err := c.Link(km).Validate(); err != nil {
			return fmt.Errorf("sweep km: %w", err)
		}
	}
	if err := c.checkPrograms(); err != nil {
		return err
	}
	if c.jobFile() {
		if _, err := os.Stat(c.Workload); err != nil {
			return fmt.Errorf("sweep workload: use builtin, fio, pgbench, or the path of an fio job file: %w", err)
		}
	}
	return nil
}

// Link is the link at a distance.
func (c Config) Link(km float64) wanem.Link {
	return c.Profile.Link(wanem.Distance(km) * wanem.Km)
}

func (c Config) jobFile() bool {
	return c.Workload != Builtin && c.Workload != Fio && c.Workload != Pgbench
}

// usPerKm is what one kilometre adds to a round trip, in microseconds.
func (c Config) rttPerKm() float64 { return 2 * c.Profile.USPerKm() }

// parameters names, as the flags do, everything that two parts of one sweep
// must have in common. Those of a target begin with its name.
func (c Config) parameters(f Facts, targets []Target) (map[string]string, error) {
	p := map[string]string{
		"km":       joinKm(distances(c.Km)),
		"profile":  c.profileName(),
		"workload": c.Workload,
		"bs":       strconv.Itoa(c.BlockSize),
		"qd":       strconv.Itoa(c.QueueDepth),
		"rate":     strconv.FormatFloat(c.Rate, 'g', -1, 64),
		"warm-up":  c.WarmUp.String(),
		"duration": c.Duration.String(),
		"repeats":  strconv.Itoa(c.Repeats),
		"idle":     c.Idle.String(),
		"seed":     strconv.FormatUint(c.Seed, 10),
		"backend":  f.Backend,
		"target":   strings.Join(names(targets), ","),
	}
	if c.jobFile() {
		job, err := os.ReadFile(c.Workload)
		if err != nil {
			return nil, fmt.Errorf("read the fio job: %w", err)
		}
		p["workload"] += fmt.Sprintf(" (CRC-32C %08x)", crc32.Checksum(job, castagnoli))
	}
	if c.Workload == Pgbench {
		p["fs"] = c.FS
		p["bs"] = "8192, a page of PostgreSQL"
	}
	maps.Copy(p, f.Parameters)
	for _, t := range targets {
		facts := t.Facts()
		p[t.Name()+".version"] = facts.Version
		for key, value := range facts.Parameters {
			p[t.Name()+"."+key] = value
		}
	}
	return p, nil
}

func names(targets []Target) (list []string) {
	for _, t := range targets {
		list = append(list, t.Name())
	}
	return list
}

func (c Config) profileName() string {
	if c.Profile.Name == "" {
		return wanem.Fibre.String()
	}
	return c.Profile.Name
}

// distances returns the km sorted, each once.
func distances(km []float64) []float64 {
	return slices.Compact(slices.Sorted(slices.Values(km)))
}

func joinKm(km []float64) string {
	parts := make([]string, len(km))
	for i, v := range km {
		parts[i] = formatKm(v)
	}
	return strings.Join(parts, ",")
}

func formatKm(km float64) string { return strconv.FormatFloat(km, 'f', -1, 64) }

// perSecond and things name what a load does, as heads of columns.
func (c Config) perSecond() string {
	if c.Workload == Pgbench {
		return "commits/s"
	}
	return "IOPS"
}

func (c Config) things() string {
	if c.Workload == Pgbench {
		return "commits"
	}
	return "writes"
}
