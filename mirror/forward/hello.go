package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// MaxName bounds the names of a client and of a node in bytes.
const MaxName = 255

const (
	helloFixed  = 34
	maxGreeting = 1024 // bytes of a hello or a refusal
)

// hello is the client's first word: whose session this is, and with what.
type hello struct {
	session     uint64
	generation  uint64
	incarnation uint64
	size        uint64 // of the volume as the client knows it, bytes
	client      string
}

func (h *hello) append(b []byte) []byte {
	for _, v := range []uint64{h.session, h.generation, h.incarnation, h.size} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.client)))
	return append(b, h.client...)
}

func (h *hello) decode(b []byte) error {
	if len(b) < helloFixed {
		return fmt.Errorf("%w: hello of %d bytes, at least %d are needed", ErrCorrupt, len(b), helloFixed)
	}
	if n := int(binary.BigEndian.Uint16(b[32:])); n > MaxName || len(b) != helloFixed+n {
		return fmt.Errorf("%w: hello of %d bytes with a name of %d", ErrCorrupt, len(b), n)
	}
	h.session = binary.BigEndian.Uint64(b)
	h.generation = binary.BigEndian.Uint64(b[8:])
	h.incarnation = binary.BigEndian.Uint64(b[16:])
	h.size = binary.BigEndian.Uint64(b[24:])
	h.client = string(b[helloFixed:])
	return nil
}

// Reason is why a connection is refused.
type Reason uint8

// The reasons of a [Refusal].
const (
	NotPrimary       Reason = iota + 1 // the node does not serve the volume now
	OldGeneration                      // the client has been to another node since
	OtherIncarnation                   // the volume may have lost what the client wrote
)

func (r Reason) String() string {
	switch r {
	case NotPrimary:
		return "the node is not the volume's primary"
	case OldGeneration:
		return "the client has attached to the volume anew since"
	case OtherIncarnation:
		return "the volume was brought back without what it may have acknowledged: close the device, check what is on it, and open it again"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Refusal is the answer of a node that does not serve a connection.
type Refusal struct {
	Reason  Reason
	Primary string // NotPrimary: the name of the node that is, if known
}

func (r *Refusal) Error() string {
	if r.Primary != "" {
		return fmt.Sprintf("refused: %v; %q is", r.Reason, r.Primary)
	}
	return fmt.Sprintf("refused: %v", r.Reason)
}

// outcome is what a client's ops come to: one that goes on elsewhere loses nothing.
func (r *Refusal) outcome() error {
	if r.Reason == OldGeneration {
		return ErrSuperseded
	}
	return syscall.EIO
}

func (r *Refusal) append(b []byte) []byte {
	name := r.Primary[:min(len(r.Primary), MaxName)]
	return append(append(b, byte(r.Reason), byte(len(name))), name...)
}

func (r *Refusal) decode(b []byte) error {
	if len(b) < 2 || len(b) != 2+int(b[1]) || b[0] == 0 {
		return fmt.Errorf("%w: refusal % x", ErrCorrupt, b[:min(len(b), 16)])
	}
	r.Reason, r.Primary = Reason(b[0]), string(b[2:])
	return nil
}

// readFrame reads a whole frame of a handshake.
func readFrame(r io.Reader) (header, []byte, error) {
	var h header
	b := make([]byte, HeaderSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, nil, err
	}
	if err := h.decode(b); err != nil {
		return h, nil, err
	}
	if h.payload > maxGreeting {
		return h, nil, fmt.Errorf("%w: %v of %d bytes in a handshake", ErrCorrupt, h.kind, h.payload)
	}
	payload := make([]byte, h.payload)
	if _, err := io.ReadFull(r, payload); err != nil {
		return h, nil, err
	}
	return h, payload, h.verify(payload)
}

// writeFrame writes a whole frame of a handshake at once.
func writeFrame(w io.Writer, k kind, payload []byte) error {
	h := header{kind: k}
	_, err := w.Write(append(h.encode(nil, payload), payload...))
	return err
}

// readHello takes a client's first word.
func readHello(r io.Reader) (hello, error) {
	var hi hello
	h, payload, err := readFrame(r)
	if err == nil && h.kind != kindHello {
		err = fmt.Errorf("%w: the first frame is a %v", ErrCorrupt, h.kind)
	}
	if err == nil {
		err = hi.decode(payload)
	}
	return hi, err
}

// greet says hello and returns nil when it is welcome; an error may be a *Refusal.
func greet(rw io.ReadWriter, hi *hello) error {
	if len(hi.client) > MaxName {
		return errors.New("the client's name is too long")
	}
	if err := writeFrame(rw, kindHello, hi.append(nil)); err != nil {
		return err
	}
	h, payload, err := readFrame(rw)
	switch {
	case err != nil:
		return err
	case h.kind == kindWelcome:
		return nil
	case h.kind == kindRefuse:
		r := new(Refusal)
		if err := r.decode(payload); err != nil {
			return err
		}
		return r
	}
	return fmt.Errorf("%w: hello was answered with a %v", ErrCorrupt, h.kind)
}
