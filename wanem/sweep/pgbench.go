package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// pgbench is a PostgreSQL on a file system on the volume, and its benchmark. A
// database is prepared once, beside the volume, and copied to each trial's; a trial is
//
//	mkfs -> mount -> copy -> start -> checkpoint -> pgbench ->
//	stop as a crash does -> unmount -> mount -> start (recovery) -> check -> stop -> unmount
type pgbench struct {
	config   Config
	dir      string // of this sweep's; "" before the first trial
	template string
	user     *syscall.Credential
}

// maxScale bounds the database to about 800 MB.
const maxScale = 50

// scale is pgbench's: a branch for each client, or they would wait for one another.
func (c Config) scale() int { return min(c.QueueDepth, maxScale) }

// databaseSize is what the volume must hold, in bytes: the database, the log and room.
func (c Config) databaseSize() int64 { return 320<<20 + int64(c.scale())*24<<20 }

// checkPgbench says what is missing for it.
func (c Config) checkPgbench() error {
	if c.FS != "ext4" && c.FS != "xfs" {
		return fmt.Errorf("sweep fs: %q: use ext4 or xfs", c.FS)
	}
	if os.Geteuid() != 0 {
		return errors.New("sweep workload pgbench: it mounts a file system: run it as root")
	}
	if c.Duration < time.Second {
		return errors.New("sweep duration: use at least 1s with pgbench")
	}
	var missing error
	for _, name := range []string{"initdb", "postgres", "pgbench", "psql", "pg_isready"} {
		_, err := postgresProgram(name)
		missing = errors.Join(missing, err)
	}
	if _, err := exec.LookPath("mkfs." + c.FS); err != nil {
		missing = errors.Join(missing, fmt.Errorf("%w: install the package %s", err, map[string]string{"ext4": "e2fsprogs", "xfs": "xfsprogs"}[c.FS]))
	}
	if missing != nil {
		return fmt.Errorf("sweep workload pgbench: %w", missing)
	}
	return nil
}

func (p *pgbench) close() error {
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}

func (p *pgbench) run(ctx context.Context, _ uint64, dev Device, source Source) (m measured, verified int64, err error) {
	if source.Path == "" {
		return m, 0, errors.New("pgbench needs a block device: use --attach kernel")
	}
	if need := p.config.databaseSize(); dev.Size() < need {
		return m, 0, fmt.Errorf("a volume of %s is too small for a database with %d clients: use --size %dMiB or more",
			formatBytes(dev.Size()), p.config.QueueDepth, need>>20)
	}
	if err := p.prepare(ctx); err != nil {
		return m, 0, fmt.Errorf("prepare the database: %w", err)
	}
	defer func() { err = errors.Join(err, p.forget()) }()
	m, commits, err := p.bench(ctx, source.Path)
	if err != nil {
		return m, 0, err
	}
	return m, commits, p.check(ctx, source.Path, commits)
}

// prepare makes the database that trials begin with.
func (p *pgbench) prepare(ctx context.Context) (err error) {
	if p.template != "" {
		return nil
	}
	if p.user, err = postgresUser(); err != nil {
		return err
	}
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "lockstep-pgbench-"); err != nil {
			return err
		}
	}
	for _, sub := range []string{"", "s", "mnt", "log", "template"} {
		if err := p.ownDir(filepath.Join(p.dir, sub)); err != nil {
			return err
		}
	}
	db := p.database(filepath.Join(p.dir, "template"))
	if _, err := db.run(ctx, "initdb", "-D", db.data, "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"); err != nil {
		return err
	}
	err = db.start(ctx)
	if err == nil {
		_, err = db.run(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(p.config.scale()))
	}
	if err = errors.Join(err, db.stop(stopClean)); err == nil {
		p.template = db.data
	}
	return err
}

func (p *pgbench) ownDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil || p.user == nil {
		return err
	}
	return os.Chown(path, int(p.user.Uid), int(p.user.Gid))
}

func (p *pgbench) database(data string) *database {
	return &database{data: data, sockets: filepath.Join(p.dir, "s"), log: filepath.Join(p.dir, "postgres.log"), credential: p.user}
}

func (p *pgbench) mountPoint() string { return filepath.Join(p.dir, "mnt") }
func (p *pgbench) onVolume() *database {
	return p.database(filepath.Join(p.mountPoint(), "data"))
}

// bench measures, and leaves the database as a crash does.
func (p *pgbench) bench(ctx context.Context, device string) (m measured, commits int64, err error) {
	if err := makeFS(ctx, p.config.FS, device); err != nil {
		return m, 0, err
	}
	err = p.mounted(device, func() error {
		copying := groupCommand(ctx, "cp", "-a", p.template, filepath.Join(p.mountPoint(), "data"))
		if _, err := runToEnd(copying); err != nil {
			return fmt.Errorf("copy the database to the volume: %w", err)
		}
		if err := syncFS(p.mountPoint()); err != nil {
			return err
		}
		return p.served(ctx, stopCrash, func(db *database) error {
			if _, err := db.query(ctx, "CHECKPOINT"); err != nil {
				return err
			}
			m, commits, err = p.transact(ctx, db)
			return err
		})
	})
	return m, commits, err
}

// mounted runs f while the file system is mounted. It is unmounted whatever happens.
func (p *pgbench) mounted(device string, f func() error) error {
	if err := mount(device, p.mountPoint(), p.config.FS); err != nil {
		return err
	}
	err := f()
	if left := unmount(p.mountPoint()); left != nil {
		err = errors.Join(err, &leftBehind{left})
	}
	return err
}

// served runs f while the server runs on the mounted volume.
func (p *pgbench) served(ctx context.Context, end syscall.Signal, f func(*database) error) error {
	db := p.onVolume()
	err := db.start(ctx)
	if err == nil {
		err = f(db)
	}
	if err != nil {
		end = stopCrash // there may be no more time for a checkpoint
	}
	return errors.Join(err, db.stop(end))
}

// transact runs pgbench and returns what it logged; commits are all, those of the
// warm-up too.
func (p *pgbench) transact(ctx context.Context, db *database) (m measured, commits int64, err error) {
	c := p.config
	logs := filepath.Join(p.dir, "log")
	if _, err := db.run(ctx, "pgbench", pgbenchArgs(c, filepath.Join(logs, "t"))...); err != nil {
		return m, 0, err
	}
	files, err := filepath.Glob(filepath.Join(logs, "t.*"))
	if err != nil {
		return m, 0, err
	}
	var all []transaction
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return m, 0, fmt.Errorf("read pgbench's log: %w", err)
		}
		list, err := parsePgbenchLog(f)
		f.Close()
		if err != nil {
			return m, 0, err
		}
		all = append(all, list...)
	}
	m, err = window(all, c.WarmUp, c.Duration)
	return m, int64(len(all)), err
}

// pgbenchArgs are for one run that holds warm-up and measured time: it knows whole
// seconds only.
func pgbenchArgs(c Config, log string) []string {
	seconds := int((c.WarmUp + c.Duration + time.Second - 1) / time.Second)
	args := []string{
		"-n", "-T", strconv.Itoa(seconds), "-c", strconv.Itoa(c.QueueDepth),
		"-j", strconv.Itoa(min(c.QueueDepth, runtime.NumCPU())), "--log", "--log-prefix=" + log,
	}
	if c.Rate > 0 {
		args = append(args, "--rate="+strconv.FormatFloat(c.Rate, 'f', -1, 64))
	}
	return args
}

// check recovers the database from the volume, past all caches, and compares it with
// what pgbench was told to be committed.
func (p *pgbench) check(ctx context.Context, device string, commits int64) error {
	if err := dropCache(device); err != nil {
		return err
	}
	return p.mounted(device, func() error {
		return p.served(ctx, stopClean, func(db *database) error {
			row, err := db.query(ctx, `SELECT (SELECT count(*) FROM pgbench_history), (SELECT coalesce(sum(delta),0) FROM pgbench_history),
				(SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)`)
			if err != nil {
				return err
			}
			return checkSums(row, commits)
		})
	})
}

// LostCommitError is a database that does not hold what was committed.
type LostCommitError struct{ What string }

func (e *LostCommitError) Error() string {
	return fmt.Sprintf("check the database after its recovery: %s: this is a fault of the volume, not of the sweep", e.What)
}

// checkSums takes the number of transactions in the history and the sums of the four
// tables, which every transaction changes alike.
func checkSums(row []string, commits int64) error {
	var v [5]int64
	for i := range v {
		if len(row) != len(v) {
			return fmt.Errorf("check the database: %q are not five numbers", row)
		}
		var err error
		if v[i], err = strconv.ParseInt(row[i], 10, 64); err != nil {
			return fmt.Errorf("check the database: %w", err)
		}
	}
	if v[0] < commits {
		return &LostCommitError{fmt.Sprintf("%d transactions were committed and %d are there", commits, v[0])}
	}
	if v[1] != v[2] || v[1] != v[3] || v[1] != v[4] {
		return &LostCommitError{fmt.Sprintf("history, accounts, tellers and branches have the sums %d, %d, %d and %d", v[1], v[2], v[3], v[4])}
	}
	return nil
}

// forget removes the logs of a trial.
func (p *pgbench) forget() error {
	logs := filepath.Join(p.dir, "log")
	if err := os.RemoveAll(logs); err != nil {
		return err
	}
	return p.ownDir(logs)
}
