package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"lockstep/nbd"
)

const (
	startTimeout = 30 * time.Second // until a volume is in sync and served
	endTimeout   = 10 * time.Second // of one process, with its flush
	pollInterval = 2 * time.Millisecond
)

// pair is a mirrored volume made of two processes of this program, a replica
// and a serve, that run where the two commands put them. One goroutine uses it.
type pair struct {
	dir, logs  string // of the two copies; of what the processes said
	socket     string
	listen     string // HOST:PORT of the replica
	size       byteSize
	ack        string
	poll       time.Duration
	congestion string // empty leaves the choice to serve

	serveCommand, replicaCommand func(args ...string) *exec.Cmd

	running []*process
	client  *nbd.Client
}

func (p *pair) primaryFile() string { return filepath.Join(p.dir, "primary.img") }
func (p *pair) replicaFile() string { return filepath.Join(p.dir, "replica.img") }
func (p *pair) uri() string         { return "nbd+unix:///?socket=" + p.socket }

func (p *pair) replicaArgs() []string {
	return []string{"replica", "--store=" + p.replicaFile(), "--size=" + p.size.String(),
		"--listen=" + p.listen, "--poll=" + p.poll.String()}
}

func (p *pair) serveArgs() []string {
	args := []string{"serve", "--store=" + p.primaryFile(), "--size=" + p.size.String(), "--nbd=unix:" + p.socket,
		"--replica=" + p.listen, "--ack=" + p.ack, "--poll=" + p.poll.String()}
	if p.congestion != "" {
		args = append(args, "--congestion="+p.congestion)
	}
	return args
}

// start starts both processes and connects to the volume. After an error stop
// is still needed.
func (p *pair) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no volume after %v", startTimeout))
	defer cancel()
	for _, dir := range []string{p.dir, p.logs} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("start the volume: %w", err)
		}
	}
	replica, err := p.run("replica", p.replicaCommand(p.replicaArgs()...))
	if err != nil {
		return err
	}
	// A serve that comes first would wait before it tries a second time.
	if err := replica.awaitOutput(ctx, "replica is listening"); err != nil {
		return err
	}
	serve, err := p.run("serve", p.serveCommand(p.serveArgs()...))
	if err != nil {
		return err
	}
	return p.connect(ctx, serve)
}

func (p *pair) run(name string, cmd *exec.Cmd) (*process, error) {
	child, err := startProcess(name, filepath.Join(p.logs, name+".log"), cmd)
	if err == nil {
		p.running = append(p.running, child)
	}
	return child, err
}

// connect waits for the socket, which is there once every replica is in sync.
func (p *pair) connect(ctx context.Context, serve *process) (err error) {
	for {
		if p.client, err = nbd.Dial(ctx, p.uri()); err == nil {
			return nil
		}
		if err := serve.pause(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// stop ends both processes, the primary first so that its last flush has
// somewhere to go. When ctx ends they are killed. It may be called again.
func (p *pair) stop(ctx context.Context) (err error) {
	if p.client != nil {
		err = p.client.Close()
		p.client = nil
	}
	for i := len(p.running) - 1; i >= 0; i-- {
		err = errors.Join(err, p.running[i].stop(ctx, endTimeout))
	}
	p.running = nil
	return err
}

// explain adds to an error what the processes said last.
func (p *pair) explain(err error) error {
	for _, child := range p.running {
		err = child.quote(err)
	}
	return err
}

// device is the volume as the sweep sees it.
type device struct{ *nbd.Client }

// Size is in bytes.
func (d device) Size() int64 { return int64(d.Client.Size()) }
