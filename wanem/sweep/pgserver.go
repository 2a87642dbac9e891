package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postgresDirs are where PostgreSQL's programs are beside the PATH: Debian has a
// directory for each version.
const postgresDirs = "/usr/lib/postgresql/*/bin"

// postgresProgram finds one of PostgreSQL's programs, of the newest version.
func postgresProgram(name string) (string, error) {
	versions, err := filepath.Glob(filepath.Join(postgresDirs, name))
	if err != nil {
		return "", err
	}
	slices.SortFunc(versions, func(a, b string) int { return versionOf(b) - versionOf(a) })
	if len(versions) > 0 {
		return versions[0], nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither in %s nor in PATH: install the package postgresql", name, postgresDirs)
	}
	return path, nil
}

// versionOf is the 15 of /usr/lib/postgresql/15/bin/postgres; 0 where there is none.
func versionOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// database is a PostgreSQL of this machine that no other program sees: it listens on
// a socket in a directory of its own.
type database struct {
	data, sockets string
	log           string
	credential    *syscall.Credential // of the user postgres; nil: this process's
	server        *exec.Cmd           // nil: it does not run
	done          chan error
}

// serverSettings keep everything that commits need and leave out what would disturb
// some trials and not others.
var serverSettings = []string{
	"listen_addresses=", "fsync=on", "synchronous_commit=on", "full_page_writes=on",
	"shared_buffers=32MB", "max_wal_size=256MB", "checkpoint_timeout=1h", "autovacuum=off", "max_connections=1100",
}

// postgresUser is who PostgreSQL runs as: it refuses to run as root.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w: install the package postgresql", err)
	}
	uid, errUID := strconv.ParseUint(who.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(who.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// command is one of PostgreSQL's programs, with this database as its default.
func (d *database) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := postgresProgram(name)
	if err != nil {
		return nil, err
	}
	cmd := groupCommand(ctx, path, args...)
	cmd.SysProcAttr.Credential = d.credential
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "PGHOST=" + d.sockets, "PGUSER=postgres", "PGDATABASE=postgres"}
	return cmd, nil
}

// run runs one of PostgreSQL's programs to its end.
func (d *database) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := d.command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	out, err := runToEnd(cmd)
	return strings.TrimSpace(string(out)), err
}

// query returns the fields of the one row that a statement gives.
func (d *database) query(ctx context.Context, sql string) ([]string, error) {
	out, err := d.run(ctx, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql)
	return strings.Split(out, "|"), err
}

// start runs the server and waits until it answers.
func (d *database) start(ctx context.Context) error {
	args := []string{"-D", d.data, "-k", d.sockets}
	for _, s := range serverSettings {
		args = append(args, "-c", s)
	}
	// Not ctx: its end would kill the server before its clients, and stop does it.
	cmd, err := d.command(context.WithoutCancel(ctx), "postgres", args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	d.server, d.done = cmd, make(chan error, 1)
	go func() { d.done <- cmd.Wait() }()
	return d.await(ctx)
}

func (d *database) await(ctx context.Context) error {
	const interval = 20 * time.Millisecond
	for {
		if _, err := d.run(ctx, "pg_isready", "-q"); err == nil {
			return nil
		}
		select {
		case err := <-d.done:
			d.server = nil
			return fmt.Errorf("PostgreSQL ended at once: %w: %s", exitOf(err), d.said())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w: %s", context.Cause(ctx), d.said())
		case <-time.After(interval):
		}
	}
}

func exitOf(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (d *database) said() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text))
}

// How a server is asked to stop: cleanly, or at once as if the machine had failed.
const (
	stopClean = syscall.SIGINT
	stopCrash = syscall.SIGQUIT
)

// stop ends the server, if it runs. One that does not heed within 30 s is killed.
func (d *database) stop(how syscall.Signal) error {
	const patience = 30 * time.Second
	if d.server == nil {
		return nil
	}
	_ = d.server.Process.Signal(how) // it may have ended by itself: the wait tells
	var err error
	select {
	case err = <-d.done:
	case <-time.After(patience):
		_ = killGroup(d.server)
		<-d.done
		err = fmt.Errorf("it did not end within %v and was killed", patience)
	}
	_ = killGroup(d.server) // what a crash leaves of its children
	d.server = nil
	if err != nil && how == stopClean {
		return fmt.Errorf("stop PostgreSQL: %w: %s", err, d.said())
	}
	return nil
}
