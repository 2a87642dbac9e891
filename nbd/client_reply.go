package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// maxChunk is the longest chunk without data that a client accepts, in bytes: a
// BLOCK_STATUS with twice the extents that this package's server sends.
const maxChunk = 16 << 20

// replyReader takes a server's replies apart. Everything that a server may not
// send is an error, and the connection is then unusable.
type replyReader struct {
	r          *bufio.Reader
	structured bool
	contextID  uint32
	find       func(cookie uint64) *call
	head       [chunkHeaderSize]byte
}

// next reads one reply or chunk. It returns the call if that completes it.
func (p *replyReader) next() (*call, error) {
	h := p.head[:simpleReplySize]
	if _, err := io.ReadFull(p.r, h); err != nil {
		return nil, noEOF(err)
	}
	switch magic := binary.BigEndian.Uint32(h); {
	case magic == protocol.TRANSMISSION_MAGIC_REPLY:
		return p.simple(h)
	case magic == NBD_STRUCTURED_REPLY_MAGIC && p.structured:
		return p.chunk()
	default:
		return nil, fmt.Errorf("a reply begins with %#x", magic)
	}
}

// noEOF names the end of the connection where a reply was due.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

func (p *replyReader) lookup(cookie uint64) (*call, error) {
	if k := p.find(cookie); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("a reply to the unknown request %#x", cookie)
}

func (p *replyReader) simple(h []byte) (*call, error) {
	k, err := p.lookup(binary.BigEndian.Uint64(h[8:]))
	if err != nil {
		return nil, err
	}
	if p.structured && (k.cmd == CmdRead || k.cmd == CmdBlockStatus) {
		return nil, fmt.Errorf("a simple reply to a %s", k.cmd)
	}
	k.err = errorOf(binary.BigEndian.Uint32(h[4:]))
	if k.err == nil && k.cmd == CmdRead {
		if _, err := io.ReadFull(p.r, k.data); err != nil {
			return nil, noEOF(err)
		}
	}
	return k, nil
}

func (p *replyReader) chunk() (*call, error) {
	if _, err := io.ReadFull(p.r, p.head[simpleReplySize:]); err != nil {
		return nil, noEOF(err)
	}
	flags, kind := binary.BigEndian.Uint16(p.head[4:]), binary.BigEndian.Uint16(p.head[6:])
	length := binary.BigEndian.Uint32(p.head[16:])
	k, err := p.lookup(binary.BigEndian.Uint64(p.head[8:]))
	if err != nil {
		return nil, err
	}
	if kind == NBD_REPLY_TYPE_OFFSET_DATA {
		err = p.data(k, length)
	} else {
		err = p.other(k, kind, length)
	}
	if err != nil || flags&NBD_REPLY_FLAG_DONE == 0 {
		return nil, err
	}
	if k.err == nil && k.cmd == CmdRead && k.received != uint64(k.length) {
		return nil, fmt.Errorf("a read of %d bytes was answered with %d", k.length, k.received)
	}
	if k.err == nil && k.cmd == CmdBlockStatus && len(k.extents) == 0 {
		return nil, errors.New("a block status without extents")
	}
	return k, nil
}

// data reads an OFFSET_DATA chunk straight into the caller's buffer.
func (p *replyReader) data(k *call, length uint32) error {
	if length <= 8 {
		return fmt.Errorf("a data chunk of %d bytes", length)
	}
	var off [8]byte
	if _, err := io.ReadFull(p.r, off[:]); err != nil {
		return noEOF(err)
	}
	dst, err := k.part(binary.BigEndian.Uint64(off[:]), length-8)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(p.r, dst)
	return noEOF(err)
}

// part returns the place of n bytes at offset in a READ's buffer.
func (k *call) part(offset uint64, n uint32) ([]byte, error) {
	at := offset - k.offset
	if k.cmd != CmdRead || offset < k.offset || at > uint64(k.length) || uint64(n) > uint64(k.length)-at {
		return nil, fmt.Errorf("a chunk of %d bytes at %d does not belong to a %s of %d at %d", n, offset, k.cmd, k.length, k.offset)
	}
	k.received += uint64(n)
	return k.data[at : at+uint64(n)], nil
}

// other reads a chunk that carries no data.
func (p *replyReader) other(k *call, kind uint16, length uint32) error {
	if length > maxChunk {
		return fmt.Errorf("a chunk of %d bytes", length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return noEOF(err)
	}
	switch {
	case kind == NBD_REPLY_TYPE_NONE && length == 0:
		return nil
	case kind == NBD_REPLY_TYPE_OFFSET_HOLE && length == 12:
		dst, err := k.part(binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]))
		clear(dst)
		return err
	case kind == NBD_REPLY_TYPE_BLOCK_STATUS && k.cmd == CmdBlockStatus && length >= 12 && length%8 == 4:
		if binary.BigEndian.Uint32(b) == p.contextID {
			k.extents = appendExtents(k.extents, b[4:])
		}
		return nil
	case kind&(1<<15) != 0 && length >= 6 && int(binary.BigEndian.Uint16(b[4:])) <= len(b)-6:
		k.fail(binary.BigEndian.Uint32(b), string(b[6:6+binary.BigEndian.Uint16(b[4:])]))
		return nil
	}
	return fmt.Errorf("a chunk of type %d with %d bytes answers a %s", kind, length, k.cmd)
}

// fail notes the first error that the server reports for k.
func (k *call) fail(errno uint32, text string) {
	if k.err != nil {
		return
	}
	k.err = errorOf(errno)
	if k.err == nil { // an error chunk with error 0
		k.err = errorOf(NBD_EIO)
	}
	if text != "" {
		k.err = fmt.Errorf("%w; the server says %.256q", k.err, text)
	}
}

func appendExtents(extents []Extent, b []byte) []Extent {
	for ; len(b) >= 8; b = b[8:] {
		state := binary.BigEndian.Uint32(b[4:])
		extents = append(extents, Extent{
			Length: uint64(binary.BigEndian.Uint32(b)),
			Hole:   state&NBD_STATE_HOLE != 0,
			Zero:   state&NBD_STATE_ZERO != 0,
		})
	}
	return extents
}
