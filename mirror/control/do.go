package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// sender numbers commands, one at a time, so that the group can tell a repetition.
type sender struct {
	client string
	seq    uint64
}

func (c *Control) sender() *sender {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.mu.idle); n > 0 {
		s := c.mu.idle[n-1]
		c.mu.idle = c.mu.idle[:n-1]
		return s
	}
	return &sender{client: c.conf.Name + "/" + rand.Text()}
}

func (c *Control) release(s *sender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.idle = append(c.mu.idle, s)
}

// Do has the group apply a command, once, wherever its leader is and however often
// that changes meanwhile. It returns when the outcome is known; if ctx ends before,
// the error wraps [ErrUnknown]. A command that was refused is a [Refused] error; one
// that lost to another is not an error, see Result.Won.
func (c *Control) Do(ctx context.Context, cmd Command) (Result, error) {
	s := c.sender()
	s.seq++
	cmd.Client, cmd.Seq, cmd.At = s.client, s.seq, time.Now().UnixNano()
	q := c.commandQuestion(cmd)
	var result Result
	err := c.atLeader(ctx, func(ctx context.Context, leader string) (err error) {
		result, err = c.ask(ctx, leader, q)
		return err
	})
	switch {
	case err == nil && result.Expired && q.sent == 1:
		return c.Do(ctx, cmd) // as a new sender, because this one was forgotten
	case err == nil && result.Expired:
		return Result{}, fmt.Errorf("%w: %s %s: this node's earlier commands were forgotten", ErrUnknown, cmd.Kind, cmd.Volume)
	case errors.As(err, new(*Refused)):
		c.release(s)
		return Result{}, err
	case err != nil: // the sender is given up: nobody shall wait for its number
		return Result{}, fmt.Errorf("%w: %s %s: %w", ErrUnknown, cmd.Kind, cmd.Volume, err)
	}
	c.release(s)
	if result.Refused != "" {
		return result, &Refused{result.Refused}
	}
	return result, nil
}

// Renew asks the leader for the lease of the primary that is alone in the in-sync set
// of volume's epoch. When it returns nil, nobody else is made primary for
// [Volume.Lease] from when it was called. It is tried once, on every way to the leader:
// the caller has its own beat.
func (c *Control) Renew(ctx context.Context, volume string, epoch uint64) error {
	changed := c.Changed()
	leader, known := c.Leader()
	_, err := c.ask(ctx, leader, c.renewalQuestion(renewal{volume, epoch}))
	if err != nil && !known { // the others are busy with an election: not too often
		c.wait(ctx, c.conf.Heartbeat/4, changed)
	}
	return err
}

// atLeader calls f with the leader's name until f succeeds, is refused or ctx ends.
func (c *Control) atLeader(ctx context.Context, f func(ctx context.Context, leader string) error) error {
	pause := time.Duration(0)
	var last error
	hint, next := "", 0
	for {
		changed := c.Changed()
		leader, ok := c.Leader()
		known := leader
		if hint != "" {
			leader, ok = hint, true
		}
		if !ok { // ask around: this node may not be a member, or not any more
			leader = c.conf.Voters[next%len(c.conf.Voters)].Name
			next++
		}
		hint = ""
		if ok || leader != c.conf.Name {
			last = c.attempt(ctx, leader, known, f)
			var elsewhere *notLeader
			if last == nil || errors.As(last, new(*Refused)) {
				return last
			}
			if errors.As(last, &elsewhere) && elsewhere.name != leader {
				hint = elsewhere.name
			}
		}
		pause = min(max(10*time.Millisecond, 2*pause), 100*time.Millisecond)
		var later *held
		if errors.As(last, &later) {
			pause = max(time.Millisecond, min(later.left, time.Second))
		}
		if hint != "" && pause < 100*time.Millisecond {
			continue
		}
		if !c.wait(ctx, pause, changed) {
			if ctx.Err() == nil {
				return errors.Join(errClosed, last)
			}
			return errors.Join(ctx.Err(), last)
		}
	}
}

// patience is how many heartbeats a leader may take to answer.
const patience = 5

// attempt gives one leader its chance, until this node learns of another than known,
// which it knew before, or there was no answer for long.
func (c *Control) attempt(ctx context.Context, leader, known string, f func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience*c.conf.Heartbeat)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	go func() {
		for {
			changed := c.Changed()
			if now, ok := c.Leader(); ok && now != known && now != leader {
				cancel()
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return f(ctx, leader)
}
