package mirror

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestMachine runs testdata/*.txt, which read as the protocol's specification.
//
//	volume [replicas=N] [durable]     a new machine; all replicas are up
//	read|write|zero NAME off=N len=N [fua]
//	flush NAME
//	applied NAME [err]                the local store did it
//	synced NAME [err]                 the local store made it durable
//	ack REPLICA applied=N [durable=N]
//	down|compare|up REPLICA
//
// Each prints the actions that the machine asks for, and with `state` the
// watermark and what is in flight.
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	m   *Machine
	ops map[string]*Op
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "volume":
		return s.volume(t, d)
	case "read", "write", "zero", "flush":
		return s.step(Event{Kind: EvSubmit, Op: s.newOp(t, d)})
	case "applied":
		return s.step(Event{Kind: EvApplied, Op: s.op(t, d), Err: scriptError(d)})
	case "synced":
		return s.step(Event{Kind: EvSynced, Op: s.op(t, d), Err: scriptError(d)})
	case "ack":
		ev := Event{Kind: EvAcked, Replica: replicaArg(t, d)}
		d.ScanArgs(t, "applied", &ev.Applied)
		d.MaybeScanArgs(t, "durable", &ev.Durable)
		return s.step(ev)
	case "down":
		return s.step(Event{Kind: EvDown, Replica: replicaArg(t, d)})
	case "compare":
		return s.step(Event{Kind: EvCompare, Replica: replicaArg(t, d)})
	case "up":
		return s.step(Event{Kind: EvUp, Replica: replicaArg(t, d)})
	case "state":
		return fmt.Sprintf("watermark %d, in flight %d, suspended %v\n", s.m.Watermark(), s.m.InFlight(), s.m.Suspended())
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (s *script) volume(t *testing.T, d *datadriven.TestData) string {
	conf := Configuration{Epoch: 1, Replicas: 1, Durable: d.HasArg("durable")}
	d.MaybeScanArgs(t, "replicas", &conf.Replicas)
	s.m, s.ops = NewMachine(conf), map[string]*Op{}
	for i := range conf.Replicas {
		s.m.Step(Event{Kind: EvUp, Replica: ReplicaID(i)})
	}
	return ""
}

func (s *script) newOp(t *testing.T, d *datadriven.TestData) *Op {
	op := &Op{Tag: d.CmdArgs[0].Key, FUA: d.HasArg("fua")}
	d.MaybeScanArgs(t, "off", &op.Off)
	d.MaybeScanArgs(t, "len", &op.Len)
	for k, name := range opNames {
		if name == d.Cmd {
			op.Kind = OpKind(k)
		}
	}
	s.ops[d.CmdArgs[0].Key] = op
	return op
}

func (s *script) op(t *testing.T, d *datadriven.TestData) *Op {
	op := s.ops[d.CmdArgs[0].Key]
	if op == nil {
		t.Fatalf("%s: no op %q", d.Pos, d.CmdArgs[0].Key)
	}
	return op
}

func replicaArg(t *testing.T, d *datadriven.TestData) ReplicaID {
	n, err := strconv.Atoi(d.CmdArgs[0].Key)
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	return ReplicaID(n)
}

func scriptError(d *datadriven.TestData) error {
	if d.HasArg("err") {
		return fmt.Errorf("disk on fire")
	}
	return nil
}

func (s *script) step(ev Event) string {
	var b strings.Builder
	for _, a := range s.m.Step(ev) {
		name := a.Op.Tag
		switch a.Kind {
		case ActApply:
			fmt.Fprintf(&b, "apply %v\n", name)
		case ActSync:
			fmt.Fprintf(&b, "sync %v\n", name)
		case ActSend:
			fmt.Fprintf(&b, "send %v seq=%d to %d\n", name, a.Op.core.seq, a.Replica)
		case ActSendFlush:
			fmt.Fprintf(&b, "send flush for %v seq=%d to %d\n", name, a.Op.core.seq, a.Replica)
		case ActComplete:
			fmt.Fprintf(&b, "complete %v", name)
			if a.Op.Err != nil {
				fmt.Fprintf(&b, ": %v", a.Op.Err)
			}
			b.WriteByte('\n')
		}
	}
	if b.Len() == 0 {
		return "-\n"
	}
	return b.String()
}
