package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

var errAborted = errors.New("the client aborted the handshake")

// handshake is the server's side of the negotiation with one client.
//
//	hello -> options --GO, EXPORT_NAME--> transmission
//	                 --ABORT, a violation, too many--> closed
type handshake struct {
	rw       io.ReadWriter
	list     func() []Export
	find     func(name string) (*Export, error)
	attach   func(*Export) (Backend, error) // waits until the export may be entered
	session  session
	context  *Export // the export that base:allocation was selected for
	noZeroes bool
	fixed    bool // the client speaks fixed newstyle
}

// run negotiates until the client enters transmission.
func (h *handshake) run() (session, error) {
	if err := h.hello(); err != nil {
		return session{}, err
	}
	for range maxOptions {
		o, err := readOption(h.rw)
		if errors.Is(err, errTooBig) {
			h.reply(o.id, NBD_REP_ERR_TOO_BIG, nil) //nolint:errcheck // closing anyway
		}
		if err != nil {
			return session{}, err
		}
		done, err := h.option(o)
		if done || err != nil {
			return h.session, err
		}
	}
	return session{}, fmt.Errorf("more than %d options", maxOptions)
}

func (h *handshake) hello() error {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, protocol.NEGOTIATION_MAGIC_OLDSTYLE)
	b = binary.BigEndian.AppendUint64(b, protocol.NEGOTIATION_MAGIC_OPTION)
	b = binary.BigEndian.AppendUint16(b, protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE|NBD_FLAG_NO_ZEROES)
	if _, err := h.rw.Write(b); err != nil {
		return err
	}
	var f [4]byte
	if _, err := io.ReadFull(h.rw, f[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(f[:])
	if unknown := flags &^ (NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES); unknown != 0 {
		return fmt.Errorf("unknown client flags %#x", unknown)
	}
	h.fixed = flags&NBD_FLAG_C_FIXED_NEWSTYLE != 0
	h.noZeroes = flags&NBD_FLAG_C_NO_ZEROES != 0
	return nil
}

// option handles one option; done means that transmission begins.
func (h *handshake) option(o option) (done bool, err error) {
	if !h.fixed && o.id != NBD_OPT_EXPORT_NAME {
		return false, fmt.Errorf("option %d from a client that is not fixed newstyle", o.id)
	}
	switch o.id {
	case NBD_OPT_EXPORT_NAME:
		return true, h.exportName(o)
	case protocol.NEGOTIATION_ID_OPTION_ABORT:
		h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil) //nolint:errcheck // the client may be gone already
		return false, errAborted
	case protocol.NEGOTIATION_ID_OPTION_LIST:
		return false, h.listing(o)
	case protocol.NEGOTIATION_ID_OPTION_INFO, protocol.NEGOTIATION_ID_OPTION_GO:
		return h.info(o)
	case NBD_OPT_STRUCTURED_REPLY:
		if len(o.data) != 0 {
			return false, h.refuse(o.id, errMalformed)
		}
		h.session.structured = true
		return false, h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
	case NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT:
		return false, h.metaContext(o)
	}
	return false, h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, nil)
}

// exportName handles the option of old clients, which has no way to refuse: an
// unknown name closes the connection.
func (h *handshake) exportName(o option) error {
	e, err := h.find(string(o.data))
	if err != nil {
		return err
	}
	if err := h.enter(e); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, e.Size)
	b = binary.BigEndian.AppendUint16(b, uint16(e.flags(h.session.structured)))
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err = h.rw.Write(b)
	return err
}

func (h *handshake) listing(o option) error {
	if len(o.data) != 0 {
		return h.refuse(o.id, errMalformed)
	}
	for _, e := range h.list() {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		b = append(b, e.Name...)
		b = append(b, e.Description...)
		if err := h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_SERVER, b); err != nil {
			return err
		}
	}
	return h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
}

// info handles INFO and GO, which differ only in what follows the answer.
func (h *handshake) info(o option) (done bool, err error) {
	name, kinds, err := parseInfoRequest(o.data)
	if err != nil {
		return false, h.refuse(o.id, err)
	}
	e, err := h.find(name)
	if err != nil {
		return false, h.refuseName(o.id, err)
	}
	enter := o.id == protocol.NEGOTIATION_ID_OPTION_GO
	if enter {
		err := h.enter(e)
		if errors.Is(err, errUnattached) {
			return false, h.refuseName(o.id, err)
		}
		if err != nil {
			return false, err
		}
	}
	b := appendInfos(nil, o.id, e, kinds, h.session.structured)
	b = appendOptionReply(b, o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
	_, err = h.rw.Write(b)
	return enter, err
}

// appendInfos appends the export's size and flags and its block sizes always,
// the rest if asked for.
func appendInfos(b []byte, id uint32, e *Export, kinds []uint16, structured bool) []byte {
	add := func(kind uint16, data []byte) {
		data = append(binary.BigEndian.AppendUint16(nil, kind), data...)
		b = appendOptionReply(b, id, protocol.NEGOTIATION_TYPE_REPLY_INFO, data)
	}
	size := binary.BigEndian.AppendUint64(nil, e.Size)
	add(protocol.NEGOTIATION_TYPE_INFO_EXPORT, binary.BigEndian.AppendUint16(size, uint16(e.flags(structured))))
	blocks := binary.BigEndian.AppendUint32(nil, e.MinBlock)
	blocks = binary.BigEndian.AppendUint32(blocks, e.PreferredBlock)
	add(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE, binary.BigEndian.AppendUint32(blocks, e.MaxBlock))
	var seen [protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE + 1]bool
	for _, k := range kinds {
		if int(k) >= len(seen) || seen[k] {
			continue
		}
		seen[k] = true
		switch {
		case k == protocol.NEGOTIATION_TYPE_INFO_NAME:
			add(k, []byte(e.Name))
		case k == protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION && e.Description != "":
			add(k, []byte(e.Description))
		}
	}
	return b
}

func (h *handshake) metaContext(o option) error {
	set := o.id == NBD_OPT_SET_META_CONTEXT
	if set {
		h.context = nil // a failed selection selects nothing
	}
	if !h.session.structured {
		return h.refuse(o.id, errors.New("structured replies come first"))
	}
	name, queries, err := parseContextRequest(o.data)
	if err != nil {
		return h.refuse(o.id, err)
	}
	e, err := h.find(name)
	if err != nil {
		return h.refuseName(o.id, err)
	}
	if wantsContext(queries, !set) {
		var id uint32 // 0 when listing
		if set {
			h.context, id = e, baseAllocationID
		}
		b := append(binary.BigEndian.AppendUint32(nil, id), contextName...)
		if err := h.reply(o.id, NBD_REP_META_CONTEXT, b); err != nil {
			return err
		}
	}
	return h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
}

// enter fixes the session's export, waiting until it may be entered.
func (h *handshake) enter(e *Export) error {
	b, err := h.attach(e)
	if err != nil {
		return err
	}
	h.session.export, h.session.backend = e, b
	h.session.baseAllocation = h.context != nil && h.context.Group == e.Group
	return nil
}

// refuseName answers an option about an export that was not found, or can't be entered.
func (h *handshake) refuseName(id uint32, why error) error {
	if errors.Is(why, fs.ErrNotExist) {
		return h.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, text(why))
	}
	return h.reply(id, NBD_REP_ERR_POLICY, text(why))
}

// text is what a client is told of an error.
func text(err error) []byte {
	t := err.Error()
	return []byte(t[:min(len(t), maxErrorText)])
}

// refuse answers an option whose data makes no sense; the handshake goes on.
func (h *handshake) refuse(id uint32, why error) error {
	kind := NBD_REP_ERR_INVALID
	if errors.Is(why, errTooBig) {
		kind = NBD_REP_ERR_TOO_BIG
	}
	return h.reply(id, kind, []byte(why.Error()))
}

func (h *handshake) reply(id, kind uint32, data []byte) error {
	_, err := h.rw.Write(appendOptionReply(nil, id, kind, data))
	return err
}
