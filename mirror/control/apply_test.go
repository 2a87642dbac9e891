package control

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestApply runs the scripts in testdata/apply: a command a line, its outcome below.
func TestApply(t *testing.T) {
	datadriven.Walk(t, "testdata/apply", func(t *testing.T, path string) {
		s := NewState()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "show" {
				return show(s)
			}
			next, r := s.Apply(scripted(t, d))
			s = next
			return outcome(r)
		})
	})
}

// scripted builds the command that a line of a script names.
func scripted(t *testing.T, d *datadriven.TestData) Command {
	arg := func(key string) (value string) {
		d.MaybeScanArgs(t, key, &value)
		return value
	}
	number := func(key string) (n int) {
		d.MaybeScanArgs(t, key, &n)
		return n
	}
	list := func(key string) []string {
		return strings.FieldsFunc(arg(key), func(r rune) bool { return r == '+' })
	}
	slots := func(key string) (out []int) {
		for _, f := range list(key) {
			n := 0
			fmt.Sscan(f, &n)
			out = append(out, n)
		}
		return out
	}
	vol, epoch, node := arg("volume"), uint64(number("epoch")), arg("node")
	var c Command
	switch d.Cmd {
	case "found":
		nodes := map[string]Node{}
		for _, name := range list("nodes") {
			nodes[name] = Node{Addr: name + ":1", Voter: true, Witness: name == "w", ID: "id-" + name}
		}
		c = found(nodes)
	case "create":
		c = CreateVolume(vol, ID{1}, int64(number("size")), Policy{Ack: arg("ack")}, list("on")...)
	case "delete":
		c = DeleteVolume(vol)
	case "propose":
		c = Propose(vol, epoch, arg("primary"), arg("by"), slots("insync"), nil)
		if d.HasArg("store") {
			c.Stores = make([]ID, number("store")+1)
			c.Stores[number("store")] = ID{0xff}
		}
	case "force":
		c = Force(vol, epoch, node)
	case "resize":
		c = ResizeVolume(vol, epoch, int64(number("size")))
	case "policy":
		c = SetPolicy(vol, epoch, Policy{Ack: arg("ack"), Failover: arg("failover")})
	case "add-replica":
		c = AddReplica(vol, epoch, node)
	case "remove-replica":
		c = RemoveReplica(vol, epoch, node)
	case "replace-replica":
		c = ReplaceReplica(vol, epoch, node, arg("by"))
	case "attach":
		c = Attach(vol, arg("of"))
	case "resume":
		c = Resume(vol, arg("of"), Session{Agent: arg("agent"), Stay: uint64(number("stay")), First: d.HasArg("first")})
	case "node":
		c = AddNode(node, Node{Addr: arg("addr"), ID: arg("id"), Witness: d.HasArg("witness")})
	case "remove-node":
		c = RemoveNode(node)
	case "promote":
		c = Promote(node)
	case "demote":
		c = Demote(node)
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	c.Client, c.Seq, c.Why = arg("client"), uint64(number("seq")), arg("why")
	return c
}

func outcome(r Result) string {
	switch {
	case r.Expired:
		return "expired\n"
	case r.Refused != "":
		return "refused: " + r.Refused + "\n"
	case r.Superseded:
		return "superseded\n"
	case !r.Won && r.Volume != nil:
		return "lost\n" + showVolume(r.Volume)
	case !r.Won:
		return "lost\n"
	}
	text := ""
	if r.Generation > 0 {
		text = fmt.Sprintf("generation %d\n", r.Generation)
	}
	if r.Volume != nil {
		return text + showVolume(r.Volume)
	}
	return text + "ok\n"
}

func showVolume(v *Volume) string {
	text := fmt.Sprintf("%s epoch %d primary %s by %s, %d bytes, incarnation %d", v.Name, v.Epoch, v.Primary, v.By, v.Size, v.Incarnation)
	if v.Forced {
		text += ", forced"
	}
	if v.Policy != (Policy{}) {
		text += fmt.Sprintf(", %+v", v.Policy)
	}
	for i, r := range v.Replicas {
		text += fmt.Sprintf("\n  %d %q", i, r.Node)
		if r.InSync {
			text += " in sync"
		}
		if r.Store != (ID{}) {
			text += " store " + r.Store.String()[:4]
		}
	}
	return text + "\n"
}

func show(s *State) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		fmt.Fprintf(&b, "node %s at %s voter=%v witness=%v id=%s\n", name, n.Addr, n.Voter, n.Witness, n.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Volumes)) {
		b.WriteString(showVolume(s.Volumes[name]))
	}
	for _, e := range s.Events {
		fmt.Fprintf(&b, "%d %s: %s", e.Index, e.Volume, e.What)
		if e.Why != "" {
			fmt.Fprintf(&b, " (%s)", e.Why)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// randomCommand is a command that a node or an operator could send at s, right or
// wrong.
func randomCommand(r *rand.Rand, s *State) Command {
	nodes := []string{"a", "b", "c", "d", "w", "x"}
	node := func() string { return nodes[r.IntN(len(nodes))] }
	vol := fmt.Sprintf("v%d", r.IntN(3))
	epoch := uint64(r.IntN(4))
	if v := s.Volumes[vol]; v != nil && r.IntN(4) > 0 {
		epoch = v.Epoch + 1
	}
	var set []int
	for i := range 6 {
		if r.IntN(2) == 0 {
			set = append(set, i)
		}
	}
	switch r.IntN(16) {
	case 0:
		return CreateVolume(vol, ID{byte(r.IntN(256))}, int64(r.IntN(5))*sector, Policy{}, "a", node())
	case 1:
		if r.IntN(8) == 0 {
			return DeleteVolume(vol)
		}
		return ResizeVolume(vol, epoch, int64(r.IntN(100))*sector)
	case 2:
		return AddReplica(vol, epoch, node())
	case 3:
		return RemoveReplica(vol, epoch, node())
	case 4:
		return ReplaceReplica(vol, epoch, node(), node())
	case 5:
		return Force(vol, epoch, node())
	case 6:
		return Attach(vol, node())
	case 7:
		return AddNode(node(), Node{Addr: node(), ID: node()})
	case 8:
		return RemoveNode(node())
	case 9:
		return Promote(node())
	case 10:
		return Demote(node())
	case 11:
		return SetPolicy(vol, epoch, Policy{Ack: "durable"})
	}
	who := node()
	if v := s.Volumes[vol]; v != nil && r.IntN(2) == 0 {
		who = v.Primary
	}
	return Propose(vol, epoch, who, who, set, nil)
}

func TestApplyKeepsItsRules(t *testing.T) {
	accepted := 0
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, _ := NewState().Apply(found(map[string]Node{
			"a": {Addr: "a", Voter: true}, "b": {Addr: "b", Voter: true}, "w": {Addr: "w", Voter: true, Witness: true},
		}))
		sent, winners := map[string][]Command{}, map[string]Volume{}
		answers := map[string]Result{}
		for step := range 400 {
			client := fmt.Sprintf("c%d", r.IntN(5))
			cmd := randomCommand(r, s)
			cmd.Client, cmd.Seq = client, uint64(len(sent[client])+1)
			before := encoded(t, s)
			next, result := s.Apply(cmd)
			if !bytes.Equal(before, encoded(t, s)) {
				t.Fatalf("seed %d, step %d: Apply changed the state that it was called on", seed, step)
			}
			sent[client] = append(sent[client], cmd)
			answers[fmt.Sprint(client, cmd.Seq)] = result
			checkStep(t, s, next, cmd, result, winners)
			s = next
			if result.Won {
				accepted++
			}
			if again := sent[client]; r.IntN(3) == 0 { // a repetition changes nothing and is answered the same
				cmd := again[len(again)-1]
				next, result := s.Apply(cmd)
				if next != s || !reflect.DeepEqual(result, answers[fmt.Sprint(client, cmd.Seq)]) {
					t.Fatalf("seed %d, step %d: %+v was applied twice: %+v", seed, step, cmd, result)
				}
			}
			if r.IntN(20) == 0 {
				s = restored(t, s)
			}
		}
	}
	if accepted < 160 {
		t.Errorf("only %d commands were accepted: the test says little", accepted)
	}
}

// checkStep holds one command to what the page promises.
func checkStep(t *testing.T, s, next *State, cmd Command, result Result, winners map[string]Volume) {
	t.Helper()
	if len(next.Nodes) > 0 && len(next.voters()) == 0 {
		t.Fatalf("%+v left no voter", cmd)
	}
	v := next.Volumes[cmd.Volume]
	if v == nil {
		return
	}
	old := s.Volumes[cmd.Volume]
	if old != nil && v.Epoch != old.Epoch && v.Epoch != old.Epoch+1 {
		t.Fatalf("%+v: from epoch %d to %d", cmd, old.Epoch, v.Epoch)
	}
	if slot := v.Slot(v.Primary); slot < 0 || !v.Replicas[slot].InSync {
		t.Fatalf("%+v: primary %q is not in sync: %s", cmd, v.Primary, showVolume(v))
	}
	if old != nil && old.Epoch == v.Epoch && (!slices.Equal(old.Replicas, v.Replicas) || old.Primary != v.Primary) {
		t.Fatalf("%+v changed the configuration within epoch %d", cmd, v.Epoch)
	}
	key := fmt.Sprint(v.Name, v.ID, v.Epoch)
	if w, known := winners[key]; known && w.Primary != v.Primary && old != nil {
		t.Fatalf("epoch %d of %s has two primaries: %q and %q", v.Epoch, v.Name, w.Primary, v.Primary)
	}
	winners[key] = *v
	if old == nil || cmd.Kind != kindPropose || !result.Won {
		return
	}
	for i, r := range v.Replicas {
		if r.InSync && !old.Replicas[i].InSync && cmd.By != old.Primary {
			t.Fatalf("%+v: %q brought slot %d in sync without being the primary", cmd, cmd.By, i)
		}
	}
}

func encoded(t *testing.T, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encodeState(&b, s, 7); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restored(t *testing.T, s *State) *State {
	t.Helper()
	again, index, err := decodeState(bytes.NewReader(encoded(t, s)))
	if err != nil || index != 7 {
		t.Fatalf("restore: index %d, %v", index, err)
	}
	if !bytes.Equal(encoded(t, s), encoded(t, again)) || again.applied != s.applied || len(again.clients) != len(s.clients) {
		t.Fatalf("a snapshot of\n%s\ncame back as\n%s", encoded(t, s), encoded(t, again))
	}
	return again
}

func TestSendersAreForgottenOldestFirst(t *testing.T) {
	s, _ := NewState().Apply(found(map[string]Node{"a": {Voter: true}}))
	for i := range maxClients + 10 {
		c := Promote("a")
		c.Client, c.Seq = fmt.Sprintf("c%d", i), 1
		s, _ = s.Apply(c)
	}
	if len(s.clients) != maxClients {
		t.Fatalf("%d senders are remembered, not %d", len(s.clients), maxClients)
	}
	again := Promote("a")
	again.Client, again.Seq = "c9", 2
	if _, r := s.Apply(again); !r.Expired {
		t.Errorf("a forgotten sender's next command: %+v", r)
	}
	again.Client = "c10"
	if _, r := s.Apply(again); !r.Won {
		t.Errorf("the oldest remembered sender's next command: %+v", r)
	}
}

func TestEventsAreBounded(t *testing.T) {
	s, _ := NewState().Apply(found(map[string]Node{"a": {Voter: true}}))
	for range MaxEvents + 5 {
		s, _ = s.Apply(Promote("a"))
	}
	if len(s.Events) != MaxEvents || s.Events[0].Index != 7 || s.Events[MaxEvents-1].Index != MaxEvents+6 {
		t.Fatalf("%d events, from %d to %d", len(s.Events), s.Events[0].Index, s.Events[len(s.Events)-1].Index)
	}
}

func FuzzLogEntry(f *testing.F) {
	entry, _ := Propose("v", 3, "a", "a", []int{0, 1}, []ID{{1}}).encode()
	f.Add(entry)
	f.Add([]byte{logVersion, '{', '}'})
	f.Add([]byte{2})
	for _, kind := range []Kind{kindFound, kindNode, kindVoter, kindCreate, kindPolicy, kindForce, kindReplace, kindAttach, "?"} {
		entry, _ := Command{Kind: kind, Volume: "v", Node: "b"}.encode()
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		c, err := decodeCommand(entry)
		if err != nil {
			return
		}
		s, _ := NewState().Apply(found(map[string]Node{"a": {Voter: true}, "b": {}}))
		s, _ = s.Apply(CreateVolume("v", ID{}, 1, Policy{}, "a", "b"))
		s.Apply(c) // whatever is in the log, all nodes must live through it
	})
}
