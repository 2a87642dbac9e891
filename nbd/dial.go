package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// defaultPort is the TCP port that IANA assigned to NBD.
const defaultPort = "10809"

// Bounds of what a server may send in the handshake.
const (
	maxReplyData     = 64 << 10 // bytes of one option reply
	maxOptionReplies = 64       // replies to one option
)

// Info is what a client learned about its export.
type Info struct {
	Export      string
	Description string // what the server says of the export, if it was asked and does
	Size        uint64 // bytes
	Flags       TransmissionFlags

	// Block sizes in bytes; the defaults 1, 4096 and 32 MiB if the server does
	// not say.
	MinBlock, PreferredBlock, MaxBlock uint32

	Structured     bool // structured replies were agreed on
	BaseAllocation bool // BlockStatus can be asked
}

// parseURI understands nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH,
// and Listen's unix:PATH and tcp:HOST:PORT, which mean the default export.
func parseURI(uri string) (network, address, export string, err error) {
	if !strings.HasPrefix(uri, "nbd:") && !strings.HasPrefix(uri, "nbd+unix:") {
		network, address, err = splitAddr(uri)
		return network, address, "", err
	}
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", "", uriError(uri, err)
	}
	export = strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "nbd+unix" && u.Query().Get("socket") != "":
		return "unix", u.Query().Get("socket"), export, nil
	case u.Scheme == "nbd" && u.Hostname() != "":
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), export, nil
	}
	return "", "", "", uriError(uri, errors.New("neither a host nor a socket"))
}

func uriError(uri string, err error) error {
	return &Error{Op: "parse URI", Subject: fmt.Sprintf("%q", uri), Err: err,
		Hint: "use nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"}
}

// Dial connects to the export that a URI names: nbd://HOST[:PORT]/EXPORT,
// nbd+unix:///EXPORT?socket=PATH, unix:PATH or tcp:HOST:PORT. ctx bounds the
// connecting and the handshake only.
func Dial(ctx context.Context, uri string) (*Client, error) {
	network, address, export, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, &Error{Op: "dial", Subject: uri, Err: err, Hint: "is the server running there?"}
	}
	interrupt := context.AfterFunc(ctx, func() { nc.Close() })
	n := newNegotiation(nc, export)
	err = n.run()
	if !interrupt() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, &Error{Op: "negotiate with", Subject: uri, Err: err}
	}
	return newClient(nc, n.r, n.info, n.contextID), nil
}

// negotiation is the client's side of the handshake.
type negotiation struct {
	w         io.Writer
	r         *bufio.Reader
	noZeroes  bool
	info      Info
	contextID uint32 // base:allocation's number
}

func newNegotiation(rw io.ReadWriter, export string) *negotiation {
	n := &negotiation{w: rw, r: bufio.NewReaderSize(rw, clientBuffer)}
	n.info = Info{Export: export, MinBlock: DefaultMinBlock, PreferredBlock: DefaultPreferredBlock, MaxBlock: DefaultMaxBlock}
	return n
}

// ErrUnknownExport is wrapped by the error of a handshake whose server has no export
// of that name.
var ErrUnknownExport = errors.New("the server has no such export")

// errRefused is the cause when the server refuses an option.
type errRefused struct {
	kind uint32
	text string
}

func (e *errRefused) Error() string {
	what := fmt.Sprintf("the server refuses with error %#x", e.kind)
	if e.Unwrap() != nil {
		what = ErrUnknownExport.Error()
	}
	if e.text != "" {
		what += fmt.Sprintf(": %.256q", e.text)
	}
	return what
}

// Unwrap says which of the errors that callers can tell apart it is.
func (e *errRefused) Unwrap() error {
	if e.kind == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN {
		return ErrUnknownExport
	}
	return nil
}

func (n *negotiation) run() error {
	if err := n.hello(); err != nil {
		return err
	}
	err := n.option(NBD_OPT_STRUCTURED_REPLY, nil, nil)
	var refused *errRefused
	switch {
	case err == nil:
		n.info.Structured = true
		if err := n.setContext(); err != nil && !errors.As(err, &refused) {
			return err
		}
	case !errors.As(err, &refused):
		return err
	}
	return n.begin()
}

// begin enters transmission, by whichever option the server knows.
func (n *negotiation) begin() error {
	err := n.enter()
	var refused *errRefused
	if errors.As(err, &refused) && refused.kind == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED {
		return n.exportName()
	}
	return err
}

func (n *negotiation) hello() error {
	var b [18]byte
	if _, err := io.ReadFull(n.r, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if binary.BigEndian.Uint64(b[:]) != protocol.NEGOTIATION_MAGIC_OLDSTYLE ||
		binary.BigEndian.Uint64(b[8:]) != protocol.NEGOTIATION_MAGIC_OPTION ||
		flags&protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE == 0 {
		return errors.New("not a fixed newstyle NBD server")
	}
	reply := NBD_FLAG_C_FIXED_NEWSTYLE
	if flags&NBD_FLAG_NO_ZEROES != 0 {
		n.noZeroes = true
		reply |= NBD_FLAG_C_NO_ZEROES
	}
	_, err := n.w.Write(binary.BigEndian.AppendUint32(nil, reply))
	return err
}

func (n *negotiation) sendOption(id uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, protocol.NEGOTIATION_MAGIC_OPTION)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := n.w.Write(append(b, data...))
	return err
}

// option sends an option and handles its replies until ACK or an error; each
// looks at those in between and may be nil.
func (n *negotiation) option(id uint32, data []byte, each func(kind uint32, data []byte) error) error {
	if err := n.sendOption(id, data); err != nil {
		return err
	}
	for range maxOptionReplies {
		kind, data, err := n.reply(id)
		switch {
		case err != nil:
			return err
		case kind == protocol.NEGOTIATION_TYPE_REPLY_ACK:
			return nil
		case kind&(1<<31) != 0:
			return &errRefused{kind, string(data)}
		case each != nil:
			if err := each(kind, data); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("more than %d replies to option %d", maxOptionReplies, id)
}

func (n *negotiation) reply(id uint32) (kind uint32, data []byte, err error) {
	var h [20]byte
	if _, err := io.ReadFull(n.r, h[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(h[16:])
	if binary.BigEndian.Uint64(h[:]) != protocol.NEGOTIATION_MAGIC_REPLY || binary.BigEndian.Uint32(h[8:]) != id || length > maxReplyData {
		return 0, nil, fmt.Errorf("malformed reply to option %d", id)
	}
	data = make([]byte, length)
	_, err = io.ReadFull(n.r, data)
	return binary.BigEndian.Uint32(h[12:]), data, err
}

func (n *negotiation) setContext() error {
	b := appendString(nil, n.info.Export)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = appendString(b, contextName)
	return n.option(NBD_OPT_SET_META_CONTEXT, b, func(kind uint32, data []byte) error {
		if kind == NBD_REP_META_CONTEXT && len(data) > 4 && string(data[4:]) == contextName {
			n.contextID, n.info.BaseAllocation = binary.BigEndian.Uint32(data), true
		}
		return nil
	})
}

func (n *negotiation) enter() error {
	b := appendString(nil, n.info.Export)
	b = binary.BigEndian.AppendUint16(b, 2)
	b = binary.BigEndian.AppendUint16(b, protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)
	b = binary.BigEndian.AppendUint16(b, protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION)
	described := false
	err := n.option(protocol.NEGOTIATION_ID_OPTION_GO, b, func(kind uint32, data []byte) error {
		if kind != protocol.NEGOTIATION_TYPE_REPLY_INFO || len(data) < 2 {
			return nil
		}
		d := data[2:]
		switch info := binary.BigEndian.Uint16(data); {
		case info == protocol.NEGOTIATION_TYPE_INFO_EXPORT && len(d) == 10:
			n.setExport(d)
			described = true
		case info == protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE && len(d) == 12:
			return n.setBlocks(binary.BigEndian.Uint32(d), binary.BigEndian.Uint32(d[4:]), binary.BigEndian.Uint32(d[8:]))
		case info == protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION:
			n.info.Description = string(d[:min(len(d), maxString)])
		}
		return nil
	})
	if err == nil && !described {
		err = errors.New("the server does not say the export's size")
	}
	return err
}

// setBlocks takes over block sizes that make sense; the largest is limited to
// what this package would accept itself.
func (n *negotiation) setBlocks(least, preferred, most uint32) error {
	if least == 0 || least&(least-1) != 0 || most < least {
		return fmt.Errorf("impossible block sizes %d, %d, %d", least, preferred, most)
	}
	n.info.MinBlock, n.info.PreferredBlock, n.info.MaxBlock = least, preferred, min(most, max(MaxPayload, least))
	return nil
}

func (n *negotiation) setExport(b []byte) {
	n.info.Size = binary.BigEndian.Uint64(b)
	n.info.Flags = TransmissionFlags(binary.BigEndian.Uint16(b[8:]))
}

// exportName enters the way that servers without GO know.
func (n *negotiation) exportName() error {
	if err := n.sendOption(NBD_OPT_EXPORT_NAME, []byte(n.info.Export)); err != nil {
		return err
	}
	b := make([]byte, 10+124)
	if n.noZeroes {
		b = b[:10]
	}
	_, err := io.ReadFull(n.r, b)
	n.setExport(b)
	return err
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
