package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lockstep/mirror/dirty"
)

// TestMachine runs testdata/machine/*.txt, which read as the protocol's
// specification. The machine is member 0. A script's commands are
//
//	volume [members=N] [in-sync=(..)] [wanted=(..)] [durable] [suspend] [lease=D] [loss=D] [size=N]
//	                                  a machine that serves; who is in sync is connected,
//	                                  who is not lacks nothing yet
//	new ...                           the same machine before its first configuration
//	promote epoch=N in-sync=(..) [own=lossy|stale] [written=(..)] [intents=(..)]
//	        [before=(..)] [out-of-sync=(ID:OFF+LEN,..)] [forgetful]
//	committed epoch=N [primary=ID] in-sync=(..) [gone=(..)]
//	up ID [lossy|stale] [unknown]     unknown: another disk than the one on record
//	      [written=(OFF+LEN,..)] [intents=(..)]
//	down ID
//	read|write|zero NAME off=N len=N [fua] [from=SESSION:NUMBER] [lowest=N] [retry]
//	flush NAME
//	applied|synced NAME [err]         the local store did it
//	ack ID applied=N [durable=N]
//	queued|copied|compared COPY [differs=(OFF+LEN,..)] [rest=N] [err]
//	moved COPY                        queued, then copied
//	finished ID
//	recheck NAME replica=ID off=N len=N [repair]
//	lease ID sent=D                   ID 0: the configuration service's
//	tick [budget=N]
//	abandon, state
//
// Each prints the actions that the machine asks for; now=D sets its clock before.
// Copies are named c1, c2, ... in the order in which they are asked for.
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	m      *Machine
	now    time.Duration
	ops    map[string]*Op
	copies map[string]*Copy
	names  map[*Copy]string
}

var errDisk = errors.New("disk on fire")

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	d.MaybeScanArgs(t, "now", &s.now)
	switch d.Cmd {
	case "new":
		s.create(t, d)
		return ""
	case "volume":
		s.create(t, d)
		return s.serve(t, d)
	case "abandon":
		return s.abandon()
	case "state":
		return s.state()
	}
	did := s.act(t, d)
	if did == "" {
		return "-\n"
	}
	return did
}

func (s *script) act(t *testing.T, d *datadriven.TestData) string {
	if d.Cmd == "moved" {
		c := named(t, d, s.copies)
		return s.step(Event{Kind: EvQueued, Copy: c}) + s.step(Event{Kind: EvCopied, Copy: c})
	}
	return s.step(s.event(t, d))
}

func (s *script) event(t *testing.T, d *datadriven.TestData) Event {
	switch d.Cmd {
	case "read", "write", "zero", "flush":
		return Event{Kind: EvSubmit, Op: s.newOp(t, d)}
	case "applied":
		return Event{Kind: EvApplied, Op: named(t, d, s.ops), Err: scriptError(d)}
	case "synced":
		return Event{Kind: EvSynced, Op: named(t, d, s.ops), Err: scriptError(d)}
	case "promote":
		return Event{Kind: EvCommitted, Conf: configurationArg(t, d), Own: s.promotion(t, d)}
	case "committed":
		ev := Event{Kind: EvCommitted, Conf: configurationArg(t, d)}
		if d.HasArg("gone") {
			ev.Gone = setArg(t, d, "gone")
		}
		return ev
	case "tick":
		ev := Event{Kind: EvTick}
		d.MaybeScanArgs(t, "budget", &ev.Budget)
		return ev
	case "recheck":
		return Event{Kind: EvRecheck, Copy: s.recheck(t, d)}
	case "queued", "copied", "compared":
		kind := map[string]EventKind{"queued": EvQueued, "copied": EvCopied, "compared": EvCompared}[d.Cmd]
		c := named(t, d, s.copies)
		c.Differs = rangesArg(t, d, "differs")
		d.MaybeScanArgs(t, "rest", &c.Rest)
		return Event{Kind: kind, Copy: c, Err: scriptError(d)}
	}
	return s.memberEvent(t, d)
}

func (s *script) memberEvent(t *testing.T, d *datadriven.TestData) Event {
	id, err := strconv.Atoi(d.CmdArgs[0].Key)
	if err != nil {
		t.Fatalf("%s: %s of whom? %v", d.Pos, d.Cmd, err)
	}
	ev := Event{Replica: ReplicaID(id)}
	switch d.Cmd {
	case "up":
		ev.Kind, ev.State = EvUp, s.stateArg(t, d)
	case "down":
		ev.Kind = EvDown
	case "ack":
		ev.Kind = EvAcked
		d.ScanArgs(t, "applied", &ev.Applied)
		d.MaybeScanArgs(t, "durable", &ev.Durable)
	case "finished":
		ev.Kind = EvFinished
	case "lease":
		ev.Kind = EvLease
		d.ScanArgs(t, "sent", &ev.SentAt)
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	return ev
}

// create makes a machine that has seen nothing.
func (s *script) create(t *testing.T, d *datadriven.TestData) {
	members := 2
	d.MaybeScanArgs(t, "members", &members)
	conf := MachineConfig{Durable: d.HasArg("durable"), Suspend: d.HasArg("suspend"), Size: 1 << 20, Block: 4 << 10, Region: 64 << 10}
	for id := range members {
		conf.Members = conf.Members.With(ReplicaID(id))
	}
	if d.HasArg("wanted") {
		conf.Wanted = setArg(t, d, "wanted")
	}
	d.MaybeScanArgs(t, "size", &conf.Size)
	d.MaybeScanArgs(t, "lease", &conf.Lease)
	d.MaybeScanArgs(t, "loss", &conf.LossTimeout)
	*s = script{m: NewMachine(conf), ops: map[string]*Op{}, copies: map[string]*Copy{}, names: map[*Copy]string{}}
}

// serve gets the machine through a promotion in which nothing differs.
func (s *script) serve(t *testing.T, d *datadriven.TestData) string {
	c := Configuration{Epoch: 1, InSync: s.m.conf.Members}
	if d.HasArg("in-sync") {
		c.InSync = setArg(t, d, "in-sync")
	}
	full := ReplicaState{Complete: true, Known: true}
	own := Promotion{State: full, OutOfSync: map[ReplicaID]*dirty.Map{}, Origins: Origins{Whole: true}}
	for _, id := range s.m.others {
		own.OutOfSync[id] = dirty.New(s.m.conf.Size, s.m.conf.Block)
	}
	s.m.Step(Event{Kind: EvCommitted, Conf: c, Own: &own})
	for _, id := range s.m.others {
		if c.InSync.Has(id) {
			s.m.Step(Event{Kind: EvUp, Replica: id, State: &full})
		}
	}
	for id := range ReplicaID(MaxReplicas) {
		s.m.Step(Event{Kind: EvFinished, Replica: id})
	}
	if !s.m.Serving() {
		t.Fatalf("%s: the machine does not serve", d.Pos)
	}
	return ""
}

func (s *script) newOp(t *testing.T, d *datadriven.TestData) *Op {
	op := &Op{Tag: d.CmdArgs[0].Key, FUA: d.HasArg("fua"), Kind: OpKind(slices.Index(opNames[:], d.Cmd))}
	d.MaybeScanArgs(t, "off", &op.Off)
	d.MaybeScanArgs(t, "len", &op.Len)
	if arg, ok := d.Arg("from"); ok {
		op.Origin = &Origin{Retry: d.HasArg("retry")}
		if _, err := fmt.Sscanf(arg.Vals[0], "%d:%d", &op.Origin.Session, &op.Origin.Number); err != nil {
			t.Fatalf("%s: from=%s: %v", d.Pos, arg.Vals[0], err)
		}
		d.MaybeScanArgs(t, "lowest", &op.Origin.Lowest)
	}
	s.ops[d.CmdArgs[0].Key] = op
	return op
}

func (s *script) promotion(t *testing.T, d *datadriven.TestData) *Promotion {
	p := &Promotion{State: ReplicaState{Known: true}, OutOfSync: map[ReplicaID]*dirty.Map{}}
	own := "complete"
	d.MaybeScanArgs(t, "own", &own)
	p.State.Complete, p.State.Lossy = own == "complete", own == "lossy"
	p.State.Written, p.State.Intents = rangesArg(t, d, "written"), s.intentsArg(t, d)
	p.Origins.Whole = !d.HasArg("forgetful")
	if d.HasArg("before") {
		p.Before = Configuration{Epoch: 1, InSync: setArg(t, d, "before")}
	}
	arg, _ := d.Arg("out-of-sync")
	for _, v := range arg.Vals {
		var id ReplicaID
		var r Range
		if _, err := fmt.Sscanf(v, "%d:%d+%d", &id, &r.Off, &r.Len); err != nil {
			t.Fatalf("%s: %s: %v", d.Pos, v, err)
		}
		if p.OutOfSync[id] == nil {
			p.OutOfSync[id] = dirty.New(s.m.conf.Size, s.m.conf.Block)
		}
		p.OutOfSync[id].Add(r.Off, r.Len)
	}
	return p
}

func (s *script) stateArg(t *testing.T, d *datadriven.TestData) *ReplicaState {
	return &ReplicaState{
		Complete: !d.HasArg("lossy") && !d.HasArg("stale"),
		Lossy:    d.HasArg("lossy"),
		Known:    !d.HasArg("unknown"),
		Written:  rangesArg(t, d, "written"),
		Intents:  s.intentsArg(t, d),
	}
}

func (s *script) intentsArg(t *testing.T, d *datadriven.TestData) *dirty.Map {
	if !d.HasArg("intents") {
		return nil
	}
	m := dirty.New(s.m.conf.Size, s.m.conf.Region)
	for _, r := range rangesArg(t, d, "intents") {
		m.Add(r.Off, r.Len)
	}
	return m
}

func (s *script) recheck(t *testing.T, d *datadriven.TestData) *Copy {
	c := &Copy{Kind: Recheck, Repair: d.HasArg("repair")}
	var id int
	d.ScanArgs(t, "replica", &id)
	c.Replica = ReplicaID(id)
	d.ScanArgs(t, "off", &c.Off)
	d.ScanArgs(t, "len", &c.Len)
	name := d.CmdArgs[0].Key
	s.copies[name], s.names[c] = c, name
	return c
}

// named finds what a command's first argument names.
func named[T any](t *testing.T, d *datadriven.TestData, all map[string]*T) *T {
	v := all[d.CmdArgs[0].Key]
	if v == nil {
		t.Fatalf("%s: no %q", d.Pos, d.CmdArgs[0].Key)
	}
	return v
}

func scriptError(d *datadriven.TestData) error {
	if d.HasArg("err") {
		return errDisk
	}
	return nil
}

func configurationArg(t *testing.T, d *datadriven.TestData) Configuration {
	c := Configuration{InSync: setArg(t, d, "in-sync")}
	d.ScanArgs(t, "epoch", &c.Epoch)
	var primary int
	d.MaybeScanArgs(t, "primary", &primary)
	c.Primary = ReplicaID(primary)
	return c
}

func setArg(t *testing.T, d *datadriven.TestData, key string) (s Set) {
	arg, ok := d.Arg(key)
	if !ok {
		t.Fatalf("%s: %s is missing", d.Pos, key)
	}
	for _, v := range arg.Vals {
		id, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %s: %v", d.Pos, key, err)
		}
		s = s.With(ReplicaID(id))
	}
	return s
}

func rangesArg(t *testing.T, d *datadriven.TestData, key string) (list []Range) {
	arg, _ := d.Arg(key)
	for _, v := range arg.Vals {
		var r Range
		if _, err := fmt.Sscanf(v, "%d+%d", &r.Off, &r.Len); err != nil {
			t.Fatalf("%s: %s=%s: %v", d.Pos, key, v, err)
		}
		list = append(list, r)
	}
	return list
}

func (s *script) step(ev Event) string {
	ev.Now = s.now
	var b strings.Builder
	for _, a := range s.m.Step(ev) {
		b.WriteString(s.describe(a))
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *script) describe(a Action) string {
	switch a.Kind {
	case ActApply:
		return fmt.Sprintf("apply %v", a.Op.Tag)
	case ActSync:
		return fmt.Sprintf("sync %v", a.Op.Tag)
	case ActSend:
		return fmt.Sprintf("send %v seq=%d to %d", a.Op.Tag, a.Op.Seq(), a.Replica)
	case ActSendFlush:
		return fmt.Sprintf("send flush for %v seq=%d to %d", a.Op.Tag, a.Op.Seq(), a.Replica)
	case ActComplete:
		return withError(fmt.Sprintf("complete %v", a.Op.Tag), a.Op.Err)
	case ActPropose:
		return fmt.Sprintf("propose %v", a.Conf)
	case ActConfigure:
		if a.Learner {
			return fmt.Sprintf("configure %d: epoch %d, learner", a.Replica, a.Conf.Epoch)
		}
		return fmt.Sprintf("configure %d: epoch %d", a.Replica, a.Conf.Epoch)
	case ActOrigins:
		return fmt.Sprintf("origins to %d", a.Replica)
	case ActCopy:
		return fmt.Sprintf("copy %s to %d: %d+%d", s.nameOf(a.Copy), a.Replica, a.Copy.Off, a.Copy.Len)
	case ActCompare:
		return fmt.Sprintf("compare %s with %d: %d+%d", s.nameOf(a.Copy), a.Replica, a.Copy.Off, a.Copy.Len)
	case ActFinish:
		return fmt.Sprintf("finish %d", a.Replica)
	case ActRechecked:
		return withError(fmt.Sprintf("rechecked %s: differs %v", s.nameOf(a.Copy), a.Copy.Differs), a.Copy.Err)
	case ActStop:
		return withError("stop", a.Err)
	}
	return fmt.Sprintf("unknown action %d", a.Kind)
}

func withError(what string, err error) string {
	if err != nil {
		return fmt.Sprintf("%s: %v", what, err)
	}
	return what
}

func (s *script) nameOf(c *Copy) string {
	if s.names[c] == "" {
		name := fmt.Sprintf("c%d", len(s.names)+1)
		s.copies[name], s.names[c] = c, name
	}
	return s.names[c]
}

func (s *script) abandon() string {
	var b strings.Builder
	s.m.Abandon(func(op *Op) {
		fmt.Fprintf(&b, "abandoned %v\n", op.Tag)
		op.Reset() // its owner may do so at once
	})
	return b.String()
}

func (s *script) state() string {
	var b strings.Builder
	m := s.m
	fmt.Fprintf(&b, "%v; serving %v, ready %v; watermark %d, in flight %d\n", m.current, m.Serving(), m.Ready(), m.Watermark(), m.InFlight())
	for _, id := range m.others {
		st := m.Member(id)
		fmt.Fprintf(&b, "%d: %s, missed %d, maybe %d, out of sync %d\n", id, st.Standing, st.Missed, st.Maybe, m.OutOfSync(id).Bytes())
	}
	return b.String()
}
