package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Handle is the major number of lockstep's root qdiscs: "10c5:" in tc's output.
const Handle = 0x10c5

const (
	root     = 0xffffffff // TC_H_ROOT
	tcmsgLen = 20

	attrKind    = 1 // TCA_KIND
	attrOptions = 2 // TCA_OPTIONS
	attrStats2  = 7 // TCA_STATS2

	statsBasic = 1 // TCA_STATS_BASIC: u64 bytes, u32 packets
	statsQueue = 3 // TCA_STATS_QUEUE: u32 qlen, backlog, drops, requeues, overlimits
)

// ErrForeign is the error for an interface whose root qdisc somebody else
// configured. Remove deletes it.
var ErrForeign = errors.New("its root qdisc is not lockstep's")

// ErrNone is the error for an interface on which lockstep has no qdisc.
var ErrNone = errors.New("lockstep has no link on it")

// Qdisc is the root qdisc of an interface.
type Qdisc struct {
	Index  int    // of the interface
	Kind   string // as tc names it; empty for the built-in ones that the kernel does not list
	Handle uint16 // major number; 0 where nobody configured one
	Config Config // if Kind is "netem"
	Stats  Stats
}

// Stats counts since the qdisc was added.
type Stats struct {
	Bytes   uint64 `json:"bytes"`
	Packets uint32 `json:"packets"`
	// Drops counts buffers lost to Config.Loss and Config.Bursts and those for
	// which Limit left no room: the kernel does not tell them apart.
	Drops uint32 `json:"drops"`
	// Queued counts the buffers on their way now.
	Queued uint32 `json:"queued"`
}

// Ours tells whether lockstep put the qdisc there.
func (q Qdisc) Ours() bool { return q.Kind == "netem" && q.Handle == Handle }

// Apply makes an interface delay what leaves it. It replaces an earlier
// configuration, refuses a foreign root qdisc (ErrForeign), and verifies that
// the kernel took every value. ErrUnavailable wraps the lack of sch_netem.
func Apply(index int, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	c = c.completed()
	switch err := Clear(index); {
	case errors.Is(err, ErrNone): // nothing to replace
	case err != nil:
		return err
	}
	if err := send(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, Handle<<16, encode(c)); err != nil {
		return opError("add netem to", index, err)
	}
	if err := verify(index, c); err != nil {
		return errors.Join(err, Clear(index))
	}
	return nil
}

// verify compares what the kernel holds with what it was asked for.
func verify(index int, c Config) error {
	want, err := decode(encode(c)) // as precise as the message is
	if err != nil {
		return opError("verify netem on", index, err)
	}
	q, err := Show(index)
	if err != nil {
		return err
	}
	got := q.Config
	if want.Seed == 0 {
		got.Seed = 0 // the kernel chose one
	}
	if !q.Ours() || got != want {
		return opError("verify netem on", index, fmt.Errorf(
			"asked for %v, seed %d; the kernel has %s %x: %v, seed %d: use Linux 4.15 or later (6.6 for a seed)",
			want, want.Seed, q.Kind, q.Handle, got, got.Seed))
	}
	return nil
}

// Clear removes lockstep's qdisc from an interface. It returns ErrNone if
// there is none and ErrForeign if there is another's.
func Clear(index int) error {
	q, err := Show(index)
	switch {
	case err != nil:
		return err
	case q.Handle == 0:
		return opError("clear netem from", index, ErrNone)
	case !q.Ours():
		return opError("clear netem from", index, fmt.Errorf("%w (it is %s %x)", ErrForeign, q.Kind, q.Handle))
	}
	return Remove(index)
}

// Remove deletes the root qdisc of an interface, whoever configured it; the
// kernel puts its default there.
func Remove(index int) error {
	if err := send(unix.RTM_DELQDISC, 0, index, 0, nil); err != nil {
		return opError("remove root qdisc of", index, err)
	}
	return nil
}

// Show returns the root qdisc of an interface; one with Handle 0 where nobody
// configured any.
func Show(index int) (Qdisc, error) {
	all, err := List()
	if err != nil {
		return Qdisc{}, err
	}
	for _, q := range all {
		if q.Index == index {
			return q, nil
		}
	}
	if _, err := net.InterfaceByIndex(index); err != nil {
		return Qdisc{}, opError("show qdisc of", index, fmt.Errorf("%w: is it in this network namespace?", err))
	}
	return Qdisc{Index: index}, nil
}

// List returns the root qdiscs of the namespace's interfaces, without the
// built-in ones that the kernel does not list.
func List() ([]Qdisc, error) {
	const tries = 3 // a dump that a change interrupted is worth repeating
	var messages [][]byte
	var err error = nl.ErrDumpInterrupted
	for i := 0; i < tries && errors.Is(err, nl.ErrDumpInterrupted); i++ {
		req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
		req.AddRawData(make([]byte, tcmsgLen))
		messages, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	}
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	var roots []Qdisc
	for _, m := range messages {
		q, isRoot, err := parseQdisc(m)
		if err != nil {
			return nil, fmt.Errorf("list qdiscs: %w", err)
		}
		if isRoot {
			roots = append(roots, q)
		}
	}
	return roots, nil
}

// parseQdisc reads the body of an RTM_NEWQDISC message.
func parseQdisc(m []byte) (q Qdisc, isRoot bool, err error) {
	if len(m) < tcmsgLen {
		return q, false, fmt.Errorf("qdisc message of %d bytes, want at least %d", len(m), tcmsgLen)
	}
	a, err := parseAttrs(m[tcmsgLen:])
	if err != nil {
		return q, false, err
	}
	stats, err := parseAttrs(a[attrStats2])
	if err != nil {
		return q, false, err
	}
	q.Index = int(int32(binary.NativeEndian.Uint32(m[4:])))
	q.Handle = uint16(binary.NativeEndian.Uint32(m[8:]) >> 16)
	q.Kind = strings.TrimRight(string(a[attrKind]), "\x00")
	q.Stats.Bytes, _ = stats.u64(statsBasic)
	q.Stats.Packets = stats.u32(statsBasic, 2)
	q.Stats.Queued = stats.u32(statsQueue, 0)
	q.Stats.Drops = stats.u32(statsQueue, 2)
	if q.Kind == "netem" {
		q.Config, err = decode(a[attrOptions])
	}
	return q, binary.NativeEndian.Uint32(m[12:]) == root, err
}

// send asks the kernel to add or delete a root qdisc and waits for its answer.
func send(operation, flags, index int, handle uint32, options []byte) error {
	return sendRaw(operation, flags, message(index, handle, options))
}

func sendRaw(operation, flags int, body []byte) error {
	req := nl.NewNetlinkRequest(operation, flags|unix.NLM_F_ACK)
	req.AddRawData(body)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// message is a tcmsg for the root of an interface and, with options, netem's attributes.
func message(index int, handle uint32, options []byte) []byte {
	b := words(0, uint32(index), handle, root, 0)
	if options != nil {
		b = appendAttr(b, attrKind, []byte("netem\x00"))
		b = appendAttr(b, attrOptions, options)
	}
	return b
}
