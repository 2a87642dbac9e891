package target

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

func checkQuorum() error {
	return errors.Join(needTool("qemu-storage-daemon", "qemu-system-common"), needTool("nbdkit", "nbdkit"))
}

// quorum is QEMU's quorum of a file at site A and an NBD export at site B, both of
// which must have a write, served over NBD at A.
type quorum struct {
	conf    *Config
	version string
}

func newQuorum(ctx context.Context, c *Config, life *run) (driver, error) {
	return &quorum{c, toolVersion(ctx, "qemu-storage-daemon") + "; " + toolVersion(ctx, "nbdkit")}, c.keepDevices(ctx, life)
}

func (q *quorum) wire() sweep.Wire { return q.conf.Wire }

func (q *quorum) file(name string) string { return filepath.Join(q.conf.Dir, name) }

func (q *quorum) open(ctx context.Context, r *run) (volume, error) {
	v := volume{copies: []string{q.file("a"), q.file("b")}}
	for _, path := range v.copies {
		if err := newFile(path, q.conf.Size); err != nil {
			return v, err
		}
	}
	host, err := q.conf.serveAtB(ctx, r, q.file("b"))
	if err != nil {
		return v, err
	}
	socket := filepath.Join(q.conf.Scratch, "quorum.sock")
	cmd := q.conf.Sites.Command(context.Background(), sites.A, "qemu-storage-daemon", q.args(host, socket)...)
	if _, err := r.start("qemu-storage-daemon", cmd); err != nil {
		return v, err
	}
	uri := "nbd+unix:///vol?socket=" + socket
	err = r.await(ctx, func() error {
		dev, err := openDevice(ctx, sweep.Source{URI: uri})
		if err != nil {
			return err
		}
		return dev.Close()
	})
	if err == nil {
		v.source, err = q.conf.attach(ctx, r, uri)
	}
	return v, err
}

func (q *quorum) args(host, socket string) []string {
	return []string{
		"--blockdev", "driver=file,node-name=local,filename=" + q.file("a"),
		"--blockdev", "driver=nbd,node-name=remote,server.type=inet,server.host=" + host + ",server.port=" + nbdPort,
		"--blockdev", "driver=quorum,node-name=vol,vote-threshold=2,read-pattern=fifo,children.0=local,children.1=remote",
		"--nbd-server", "addr.type=unix,addr.path=" + socket,
		"--export", "type=nbd,id=vol,node-name=vol,name=vol,writable=on",
	}
}

func (q *quorum) facts() sweep.TargetFacts {
	host := q.conf.Sites.Addr(sites.B).String()
	return sweep.TargetFacts{Version: q.version, Parameters: q.conf.parameters(), Settings: []sweep.Setting{
		{Name: "vote-threshold", Value: "2 of 2", Why: "a write is acknowledged when both sites have it"},
		{Name: "read-pattern", Value: "fifo", Why: "reads are local, as the other mirrors' are; the threshold still counts for writes and flushes"},
		{Name: "cache", Value: "writeback, page cache", Why: "the default, and what the other targets' copies have"},
		{Name: "flush", Value: "waits for both sites", Why: "it goes to both children, and nbdkit's is an fsync"},
		q.conf.file(),
	}, Commands: []string{serverCommand(host), "site a: qemu-storage-daemon " + strings.Join(q.args(host, "vol.sock"), " ")}}
}
