package kernel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// golden compares a message with testdata/NAME.hex: hexadecimal digits, and text after #.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the messages in testdata are of a little-endian machine")
	}
	path := filepath.Join("testdata", name+".hex")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	want, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot  %x\nwant %x", name, got, want)
	}
}

func framed(command uint8, attributes []byte) []byte {
	m := message{family: 0x1f, flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, seq: 7, command: command, version: NBD_GENL_VERSION, attrs: attributes}
	return m.encode()
}

// TestMessages holds what is sent to the kernel to its interface, byte for byte.
func TestMessages(t *testing.T) {
	spec := &Spec{Size: 1 << 30, Block: 4096, Flags: 0x10d, Timeout: time.Second, DeadAfter: 24 * time.Hour, Backend: identity{"vol@host-nbd3", 2, "a volume"}.String()}
	change := Change{Size: 2 << 30, Timeout: 2 * time.Second, Sockets: []int{9}}
	golden(t, "connect", framed(NBD_CMD_CONNECT, spec.encode(3, []int{5, 6})))
	golden(t, "reconfigure", framed(NBD_CMD_RECONFIGURE, change.encode(3, spec.Backend)))
	golden(t, "probe", framed(NBD_CMD_RECONFIGURE, new(Change).encode(3, spec.Backend)))
	golden(t, "disconnect", framed(NBD_CMD_DISCONNECT, appendUint32(nil, NBD_ATTR_INDEX, 3)))
}

func TestReplies(t *testing.T) {
	answer := message{family: 0x1f, seq: 7, command: NBD_CMD_CONNECT, version: 1, attrs: appendUint32(nil, NBD_ATTR_INDEX, 4)}
	refused := message{family: unix.NLMSG_ERROR, seq: 8}
	busy := refused.encode()[:nlHeaderSize]
	busy = binary.NativeEndian.AppendUint32(busy, uint32(0x100000000-uint64(unix.EBUSY)))
	binary.NativeEndian.PutUint32(busy, uint32(len(busy)))
	got, err := parseReplies(append(answer.encode(), busy...))
	want := []reply{
		{kind: 0x1f, seq: 7, command: NBD_CMD_CONNECT, attrs: attrs{NBD_ATTR_INDEX: {4, 0, 0, 0}}},
		{kind: unix.NLMSG_ERROR, seq: 8, errno: syscall.EBUSY},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func FuzzReplies(f *testing.F) {
	m := message{family: 0x1f, seq: 1, command: 2, attrs: appendText(nil, 10, "x")}
	f.Add(m.encode())
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		replies, err := parseReplies(b)
		if err == nil && len(replies)*nlHeaderSize > len(b) {
			t.Errorf("%d replies in %d bytes", len(replies), len(b))
		}
	})
}

func TestIdentityIsReadBack(t *testing.T) {
	id := identity{"nbd+unix:///x?socket=/a", 16, "quoted \"text\"\nof two lines"}
	if got, ok := parseIdentity(id.String()); got != id || !ok {
		t.Errorf("%+v, %v, want %+v", got, ok, id)
	}
	for _, foreign := range []string{"", "lockstep", "lockstep vol", "lockstep vol 1 text", "lockstep vol 0 \"x\"", "drbd vol 1 \"x\""} {
		if _, ok := parseIdentity(foreign); ok {
			t.Errorf("%q counts as ours", foreign)
		}
	}
}

// TestFamily asks the real kernel for a family that it always has.
func TestFamily(t *testing.T) {
	s, err := openSocket()
	if err != nil {
		t.Skipf("no generic netlink here: %v", err)
	}
	defer s.close()
	if id, err := s.family("nlctrl"); err != nil || id != unix.GENL_ID_CTRL {
		t.Errorf("family %d, %v", id, err)
	}
	if _, err := s.family("no-such-thing"); err != unix.ENOENT {
		t.Errorf("a family that is not there: %v", err)
	}
}
