package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/mirror/internal/sabotage"
)

// Apply is the group's state machine: the state after c, and what c came to. It is
// pure, so that every node, and a simulator, comes to the same. s is not changed.
func (s *State) Apply(c Command) (*State, Result) {
	if last, known := s.clients[c.Client]; known && c.Seq <= last.Seq && !sabotage.On("again") {
		if c.Seq == last.Seq {
			return s, last.Result
		}
		return s, Result{Expired: true}
	} else if !known && c.Seq > 1 {
		return s, Result{Expired: true}
	}
	next := s.clone()
	next.applied++
	t := transition{State: next, c: c}
	result := t.apply()
	next.remember(c, result)
	return next, result
}

// remember keeps the result for a command that is sent again; beyond maxClients the
// sender that was silent longest is forgotten.
func (s *State) remember(c Command, r Result) {
	if c.Client == "" {
		return
	}
	s.clients[c.Client] = answer{Seq: c.Seq, At: s.applied, Result: r}
	if len(s.clients) <= maxClients {
		return
	}
	oldest, at := "", s.applied
	for name, a := range s.clients {
		if a.At < at {
			oldest, at = name, a.At
		}
	}
	delete(s.clients, oldest)
}

// transition is one command at work on the state that it makes.
type transition struct {
	*State
	c Command
}

func (t transition) apply() Result {
	if t.c.Kind == kindNode && t.c.Info == nil || (t.c.Kind == kindCreate || t.c.Kind == kindPolicy) && t.c.Policy == nil {
		return refuse("command %q says nothing", t.c.Kind)
	}
	switch t.c.Kind {
	case kindFound, kindNode, kindNodeGone, kindVoter, kindNonvoter:
		return t.node()
	case kindCreate:
		return t.create()
	}
	v := t.Volumes[t.c.Volume]
	if v == nil {
		return refuse("there is no volume %q", t.c.Volume)
	}
	switch t.c.Kind {
	case kindDelete:
		delete(t.Volumes, t.c.Volume)
		t.event("deleted")
		return Result{Won: true, Volume: v}
	case kindAttach:
		return t.attach(v.clone())
	case kindForgot:
		return t.forgot(v.clone())
	}
	if t.c.Epoch != 0 && t.c.Epoch != v.Epoch+1 && !sabotage.On("stale") {
		return Result{Volume: v}
	}
	next := v.clone()
	next.Epoch++
	next.Forced = false
	if reason := t.change(v, next); reason != "" {
		return Result{Volume: v, Refused: reason}
	}
	t.Volumes[v.Name] = next
	return Result{Won: true, Volume: next}
}

// change makes v, a copy of old one epoch later, what the command asks for; or says
// why that is refused.
func (t transition) change(old, v *Volume) (refused string) {
	if t.c.Kind != kindPropose {
		v.By = Operator
	}
	switch t.c.Kind {
	case kindPropose:
		return t.propose(old, v)
	case kindForce:
		return t.force(v)
	case kindResize:
		if refused := checkSize(t.c.Size); refused != "" {
			return refused
		}
		if t.c.Size < old.Size {
			return fmt.Sprintf("volume %q has %d bytes and cannot shrink to %d: what lies beyond would be lost", v.Name, old.Size, t.c.Size)
		}
		v.Size = t.c.Size
		t.event(fmt.Sprintf("resized from %d to %d bytes", old.Size, v.Size))
	case kindPolicy:
		if refused := t.c.Policy.Wrong(); refused != "" {
			return refused
		}
		if t.c.Policy.Lease != old.Policy.Lease {
			return "a volume's lease cannot be changed: its copies would not agree on it for a while"
		}
		v.Policy = *t.c.Policy
		t.event(fmt.Sprintf("policy is ack %s, failover %s, on isolation %s, on loss %s", cmp.Or(v.Policy.Ack, "written"),
			cmp.Or(v.Policy.Failover, "auto"), cmp.Or(v.Policy.OnIsolation, "suspend"), cmp.Or(v.Policy.OnLoss, "continue")))
	case kindAdd, kindRemove, kindReplace:
		return t.replica(v)
	default:
		return fmt.Sprintf("unknown command %q: upgrade this node", t.c.Kind)
	}
	return ""
}

func (t transition) create() Result {
	switch {
	case t.c.Volume == "" || len(t.c.Volume) > 255:
		return refuse("a volume's name has 1 to 255 bytes")
	case t.Volumes[t.c.Volume] != nil:
		return Result{Volume: t.Volumes[t.c.Volume], Refused: fmt.Sprintf("volume %q exists", t.c.Volume)}
	case len(t.c.Members) == 0 || len(t.c.Members) > MaxReplicas:
		return refuse("a volume has 1 to %d replicas, not %d", MaxReplicas, len(t.c.Members))
	}
	if refused := cmp.Or(checkSize(t.c.Size), t.c.Policy.Wrong()); refused != "" {
		return Result{Refused: refused}
	}
	v := &Volume{
		Name: t.c.Volume, ID: t.c.ID, Size: t.c.Size, Primary: t.c.Members[0],
		By: Operator, Policy: *t.c.Policy,
	}
	for _, node := range t.c.Members {
		if refused := t.mayHold(v, node); refused != "" {
			return Result{Refused: refused}
		}
		v.Replicas = append(v.Replicas, Replica{Node: node, InSync: true})
	}
	t.Volumes[v.Name] = v
	t.event("created on " + strings.Join(t.c.Members, ", "))
	return Result{Won: true, Volume: v}
}

func (t transition) attach(v *Volume) Result {
	generation, known := v.Clients[t.c.Of]
	switch last := v.Sessions[t.c.Of]; {
	case !known && len(v.Clients) >= maxNamed:
		return Result{Volume: v, Refused: fmt.Sprintf("volume %q knows %d named clients already", v.Name, maxNamed)}
	case t.c.Session == nil || !known:
	case t.c.Session.Agent == last.Agent && t.c.Session.Stay == last.Stay:
		return Result{Won: true, Volume: v, Generation: generation}
	case t.c.Session.Agent == last.Agent && t.c.Session.Stay < last.Stay, t.c.Session.Agent != last.Agent && !t.c.Session.First:
		return Result{Volume: v, Superseded: true}
	}
	if v.Clients == nil {
		v.Clients = map[string]uint64{}
	}
	v.Clients[t.c.Of] = generation + 1
	delete(v.Sessions, t.c.Of)
	if t.c.Session != nil {
		if v.Sessions == nil {
			v.Sessions = map[string]Session{}
		}
		v.Sessions[t.c.Of] = Session{Agent: t.c.Session.Agent, Stay: t.c.Session.Stay}
	}
	t.Volumes[v.Name] = v
	return Result{Won: true, Volume: v, Generation: v.Clients[t.c.Of]}
}

// forgot begins an incarnation, within the epoch.
func (t transition) forgot(v *Volume) Result {
	if t.c.Epoch != v.Epoch {
		return Result{Volume: v}
	}
	v.Incarnation++
	t.Volumes[v.Name] = v
	t.event(fmt.Sprintf("incarnation %d: acknowledged writes may be lost", v.Incarnation))
	return Result{Won: true, Volume: v}
}

// propose applies a node's proposal. Data is safe because who was not the primary
// cannot call a replica in sync that was not.
func (t transition) propose(old, v *Volume) (refused string) {
	slot := v.Slot(t.c.Primary)
	if slot < 0 || !slices.Contains(t.c.InSync, slot) {
		return fmt.Sprintf("%q, to be the primary, is not in the proposed in-sync set", t.c.Primary)
	}
	if t.c.By != old.Primary && t.c.By != t.c.Primary {
		return fmt.Sprintf("%q is not the primary, to hand volume %q over", t.c.By, v.Name)
	}
	for i := range v.Replicas {
		in := slices.Contains(t.c.InSync, i)
		if in && i < len(t.c.Members) && t.c.Members[i] != v.Replicas[i].Node {
			return fmt.Sprintf("slot %d was of %q when %q learnt of it, and is not any more", i, t.c.Members[i], t.c.By)
		}
		if in && !old.Replicas[i].InSync && t.c.By != old.Primary {
			return fmt.Sprintf("slot %d is not in sync, and %q is not the primary to say that it is", i, t.c.By)
		}
		v.Replicas[i].InSync = in
		if i < len(t.c.Stores) && t.c.Stores[i] != (ID{}) {
			v.Replicas[i].Store = t.c.Stores[i]
		}
	}
	for _, i := range t.c.InSync {
		if i < 0 || i >= len(v.Replicas) || v.Replicas[i].Node == "" {
			return fmt.Sprintf("slot %d is free and cannot be in sync", i)
		}
	}
	v.Primary, v.By = t.c.Primary, t.c.By
	t.event(described(old, v))
	return ""
}

func (t transition) force(v *Volume) (refused string) {
	slot := v.Slot(t.c.Node)
	if slot < 0 {
		return fmt.Sprintf("%q has no replica of volume %q", t.c.Node, v.Name)
	}
	loss := "it was in sync, nothing is lost"
	if !v.Replicas[slot].InSync {
		v.Incarnation++
		loss = "what it lacks is lost"
	}
	for i := range v.Replicas {
		v.Replicas[i].InSync = i == slot
	}
	v.Primary, v.Forced = t.c.Node, true
	t.event(fmt.Sprintf("epoch %d: an operator made %s the primary; %s", v.Epoch, v.Primary, loss))
	return ""
}

func (t transition) event(what string) {
	e := Event{Index: 1, At: time.Unix(0, t.c.At).UTC(), Volume: t.c.Volume, What: what, Why: t.c.Why}
	if n := len(t.Events); n > 0 {
		e.Index = t.Events[n-1].Index + 1
	}
	t.Events = append(t.Events, e)
	if drop := len(t.Events) - MaxEvents; drop > 0 {
		t.Events = t.Events[drop:]
	}
}

// described says what an accepted proposal changed.
func described(old, v *Volume) string {
	what := fmt.Sprintf("epoch %d", v.Epoch)
	switch {
	case old.Epoch == 0:
		what += ": " + v.Primary + " is the first primary"
	case old.Primary == v.Primary && v.By == v.Primary:
	case v.By == old.Primary:
		what += fmt.Sprintf(": %s handed over to %s", old.Primary, v.Primary)
	default:
		what += fmt.Sprintf(": %s took over from %s", v.Primary, old.Primary)
	}
	for i, r := range v.Replicas {
		switch was := old.Replicas[i].InSync; {
		case was && !r.InSync && old.Epoch == 0: // it never was: nothing had been written
		case was && !r.InSync:
			what += "; " + r.Node + " left the in-sync set"
		case !was && r.InSync:
			what += "; " + r.Node + " is in sync"
		}
	}
	return what
}

// sector is the smallest unit of a volume, in bytes: what its copies' disks write whole.
const sector = 512

func checkSize(size int64) (refused string) {
	switch {
	case size <= 0:
		return fmt.Sprintf("a volume cannot have %d bytes", size)
	case size%sector != 0:
		return fmt.Sprintf("a volume's size is a multiple of %d bytes, which %d is not", sector, size)
	}
	return ""
}

// Wrong says what no volume can have in the policy, whatever the group's state; "" if
// nothing. An empty field is not wrong.
func (p *Policy) Wrong() string {
	for _, field := range []struct{ name, value, first, second string }{
		{"ack", p.Ack, "written", "durable"}, {"failover", p.Failover, "auto", "manual"},
		{"on-isolation", p.OnIsolation, "suspend", "error"}, {"on-loss", p.OnLoss, "continue", "suspend"},
	} {
		if field.value != "" && field.value != field.first && field.value != field.second {
			return fmt.Sprintf("policy %s is %q or %q, not %q", field.name, field.first, field.second, field.value)
		}
	}
	if p.Lease != 0 && (p.Lease < MinLease || p.Lease > MaxLease) {
		return fmt.Sprintf("a lease of %v is not between %v and %v", p.Lease, MinLease, MaxLease)
	}
	return ""
}

func refuse(format string, args ...any) Result {
	return Result{Refused: fmt.Sprintf(format, args...)}
}
