package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reign is this node's time as the leader: what it promised in memory.
//
// A primary that is alone in sync may acknowledge writes only under a lease, so that
// an operator who names another one waits it out. The lease counts from when the
// primary asked; the promise, longer by a quarter, from when the leader was asked. A
// leader that cannot reach a majority answers nothing, and a new one waits for
// whatever its predecessor may have promised.
type reign struct {
	mu        sync.Mutex
	term      uint64 // 0: not the leader, or not yet ready
	since     time.Time
	promises  map[string]time.Time // by volume: nobody else is made primary before
	wanted    map[string]time.Time // by volume: a takeover waits, and no promise is made before
	takeovers map[string]int       // by volume: commands under way that may name another primary
	moved     time.Time            // when leadership was last offered to a witness
}

// notLeader is where a command went wrong that another node has to decide.
type notLeader struct{ name, addr string }

func (e *notLeader) Error() string {
	if e.name == "" {
		return "the group has no leader that this node knows of"
	}
	return fmt.Sprintf("the leader is %q at %s", e.name, e.addr)
}

// held is why a command has to be tried again later.
type held struct {
	why  string
	left time.Duration
}

func (e *held) Error() string { return e.why }

// watchLeadership makes this node ready to lead whenever raft says that it does.
func (c *Control) watchLeadership(r *raft.Raft, notify <-chan bool) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case leads := <-notify:
			c.reign.set(0)
			if !leads {
				continue
			}
			term := r.CurrentTerm()
			if err := c.outcome(c.ctx, r.Barrier(0), nil); err != nil {
				c.conf.Log.Debug("lost leadership before it began", "err", err)
				continue
			}
			c.reign.set(term)
			c.conf.Log.Info("leads the group", "term", term)
			c.announceChange()
		}
	}
}

func (g *reign) set(term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.term, g.since = term, time.Now()
	clear(g.promises)
	clear(g.wanted)
}

// leads returns raft if this node leads and knows all that was decided before. If only
// the latter is missing, the error is a held one, and raft is returned with it.
func (c *Control) leads() (*raft.Raft, error) {
	r := c.raft.Load()
	if r == nil {
		return nil, &notLeader{}
	}
	_, id := r.LeaderWithID()
	switch {
	case string(id) != c.conf.Name:
		addr, _ := c.address(string(id))
		return nil, &notLeader{string(id), addr}
	case c.trans.stalled():
		return nil, &notLeader{}
	}
	c.reign.mu.Lock()
	term := c.reign.term
	c.reign.mu.Unlock()
	if r.State() != raft.Leader || term != r.CurrentTerm() {
		return r, &held{"the leader is not ready yet", c.conf.Heartbeat / 8}
	}
	return r, nil
}

// leadsFor is leads for one command. A proposal need not wait until the leader knows
// all: if what it knows is the epoch before the proposed one, it knows what counts, and
// if that is no longer in force, the proposal loses.
func (c *Control) leadsFor(cmd Command) (*raft.Raft, error) {
	r, err := c.leads()
	v := c.State().Volumes[cmd.Volume]
	if err != nil && r != nil && cmd.Kind == kindPropose && v != nil && cmd.Epoch == v.Epoch+1 {
		return r, nil
	}
	return r, err
}

// promise is how long the leader keeps others from a lone primary's place.
func promise(v *Volume) time.Duration { return v.Lease() + v.Lease()/4 }

// inherited is how long a new leader does so for promises it never heard of. An answer
// that was under way when it was elected may count for the old one, so a whole
// request's time is added.
func (c *Control) inherited(v *Volume) time.Duration {
	return promise(v) + c.conf.requestTime()
}

// usurps says that a command may make another node primary without the old one's word.
func usurps(s *State, cmd Command) bool {
	v := s.Volumes[cmd.Volume]
	if v != nil && cmd.Epoch != 0 && cmd.Epoch <= v.Epoch { // it can't win any more
		return false
	}
	return cmd.Kind == kindForce || cmd.Kind == kindPropose && (v == nil || cmd.By != v.Primary)
}

// admit holds back a command that would break a promise; the caller calls done when
// the command's outcome is known. term is raft's at present.
func (c *Control) admit(term uint64, cmd Command) (done func(), err error) {
	g := &c.reign
	g.mu.Lock()
	defer g.mu.Unlock()
	s := c.State()
	if !usurps(s, cmd) {
		return func() {}, nil
	}
	if v := s.Volumes[cmd.Volume]; v != nil && v.Alone() && v.Epoch > 0 && cmd.Node != v.Primary {
		since := g.since
		if g.term != term { // not ready, so new
			since = time.Now()
		}
		until := since.Add(c.inherited(v))
		if p := g.promises[cmd.Volume]; p.After(until) {
			until = p
		}
		if left := time.Until(until); left > 0 {
			g.wanted[cmd.Volume] = until.Add(time.Second)
			return nil, &held{fmt.Sprintf("the lease of %q, the primary of volume %q, runs for another %v", v.Primary, v.Name, left), left}
		}
	}
	delete(g.wanted, cmd.Volume)
	g.takeovers[cmd.Volume]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.takeovers[cmd.Volume]--; g.takeovers[cmd.Volume] == 0 {
			delete(g.takeovers, cmd.Volume)
		}
	}, nil
}

// renewHere extends the lease of the lone primary of a volume, if this node leads.
func (c *Control) renewHere(ctx context.Context, volume string, epoch uint64) error {
	r, err := c.leads()
	if err != nil {
		return err
	}
	if err := c.reign.extend(c.State().Volumes[volume], volume, epoch); err != nil {
		return err
	}
	verified := r.VerifyLeader()
	if err := c.outcome(ctx, verified, nil); err != nil {
		return &held{fmt.Sprintf("the leader does not reach a majority: %v", err), c.conf.Heartbeat / 8}
	}
	return nil
}

func (g *reign) extend(v *Volume, volume string, epoch uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case v == nil:
		return &Refused{fmt.Sprintf("there is no volume %q", volume)}
	case v.Epoch != epoch || !v.Alone():
		return &Refused{fmt.Sprintf("epoch %d of volume %q is not one of a lone primary: epoch %d is in force", epoch, volume, v.Epoch)}
	case g.takeovers[volume] > 0 || time.Now().Before(g.wanted[volume]):
		return &held{fmt.Sprintf("volume %q may be about to have another primary", volume), 10 * time.Millisecond}
	}
	g.promises[volume] = time.Now().Add(promise(v))
	return nil
}

// applyHere puts a command into the log, if this node leads. An error does not mean
// that the command will not apply.
func (c *Control) applyHere(ctx context.Context, cmd Command) (Result, error) {
	r, err := c.leadsFor(cmd)
	if err != nil {
		return Result{}, err
	}
	if len(c.State().Nodes) == 0 && cmd.Kind != kindFound {
		return Result{}, &held{"the cluster is about to begin", c.conf.Heartbeat / 8}
	}
	if err := c.mayChangeNodes(r, cmd); err != nil {
		return Result{}, err
	}
	done, err := c.admit(r.CurrentTerm(), cmd)
	if err != nil {
		return Result{}, err
	}
	entry, err := cmd.encode()
	if err != nil {
		done()
		return Result{}, &Refused{err.Error()}
	}
	future := r.Apply(entry, time.Second)
	err = c.outcome(ctx, future, done)
	if err != nil {
		return Result{}, fmt.Errorf("control: apply at the leader: %w", err)
	}
	return future.Response().(Result), nil
}

// Refused is a command that can never apply, and why.
type Refused struct{ Reason string }

func (e *Refused) Error() string { return "control: refused: " + e.Reason }

// ErrUnknown is wrapped by errors of commands that may or may not have been applied.
var ErrUnknown = errors.New("control: it is not known whether the command was applied")
