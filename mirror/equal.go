package mirror

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"lockstep/mirror/wire"
)

const (
	// compareChunk is what one digest covers, in bytes.
	compareChunk = 4 << 20
	// compareDepth is how many digests are asked for ahead, so that distance
	// costs bandwidth and not a round trip a chunk. 32 x 4 MiB.
	compareDepth = 32
	// maxHole bounds a range that is all zeroes here: the frame's length field.
	maxHole = 1 << 31

	// primeSize is how much a link must carry at full speed before it counts as
	// primed, in bytes.
	primeSize = 4 << 20
)

// prime fills the connection's pipe before anything waits for it: TCP starts
// slowly, and a first large write would pay a round trip for each doubling of
// the congestion window. Pings that carry 1 MiB are sent until they stop getting
// faster. On a path where one takes long anyway, few are sent.
func (l *link) prime(fc *frameConn) error {
	pad := make([]byte, wire.MaxPayload)
	best := time.Duration(1<<63 - 1)
	stale := 0
	for began := time.Now(); stale < 2 && time.Since(began) < 4*l.v.conf.Timeout; {
		start := time.Now()
		for range primeSize / len(pad) {
			if err := fc.write(wire.Header{Kind: wire.KindPing}, pad); err != nil {
				return err
			}
		}
		for range primeSize / len(pad) {
			if _, _, err := fc.expect(wire.KindPong); err != nil {
				return err
			}
		}
		took := time.Since(start)
		if took > best*9/10 {
			stale++
		} else {
			stale = 0
		}
		best = min(best, took)
	}
	return nil
}

// extent is a range of the volume, and whether the primary holds only zeroes
// there.
type extent struct {
	off, len int64
	hole     bool
}

// extents cuts the volume into chunks of data and holes of any length.
func (l *link) extents(off int64) (extent, error) {
	store := l.v.conf.Store
	start, end, err := store.Data(off)
	if err != nil {
		return extent{}, err
	}
	if start > off {
		return extent{off: off, len: min(start-off, maxHole), hole: true}, nil
	}
	return extent{off: off, len: min(end-off, compareChunk)}, nil
}

// makeEqual makes the replica's copy the primary's, range by range, by checksum
// first. Writes wait meanwhile (their local application does not: what is
// applied here but not acknowledged is sent again when the link is up). Cost:
// both copies are read once, and what differs is sent once.
func (l *link) makeEqual(ctx context.Context, fc *frameConn) error {
	size := l.v.conf.Store.Size()
	var asked []extent
	var copied int64
	began, said := time.Now(), time.Now()
	for off := int64(0); off < size || len(asked) > 0; {
		for off < size && len(asked) < compareDepth {
			e, err := l.ask(fc, off)
			if err != nil {
				return err
			}
			asked = append(asked, e)
			off += e.len
		}
		n, err := l.compare(fc, asked[0])
		if err != nil {
			return err
		}
		copied += n
		asked = asked[1:]
		if time.Since(said) > 2*time.Second {
			said = time.Now()
			l.v.conf.Log.Info("comparing", "replica", l.addr, "percent", 100*off/size, "copied_bytes", copied)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := fc.write(wire.Header{Kind: wire.KindPing, Flags: wire.Durable}, nil); err != nil {
		return err
	}
	if _, _, err := fc.expect(wire.KindPong); err != nil {
		return err
	}
	l.v.conf.Log.Info("replica is equal", "replica", l.addr, "compared_bytes", size, "copied_bytes", copied, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (l *link) ask(fc *frameConn, off int64) (extent, error) {
	e, err := l.extents(off)
	if err != nil {
		return e, err
	}
	h := wire.Header{Kind: wire.KindSum, Offset: uint64(e.off), Length: uint32(e.len)}
	if e.hole {
		h.Flags = wire.Zero
	}
	return e, fc.write(h, nil)
}

// compare takes the digest of e and copies e if it differs; it returns how many
// bytes that were.
func (l *link) compare(fc *frameConn, e extent) (int64, error) {
	h, theirs, err := fc.expect(wire.KindDigest)
	if err != nil {
		return 0, err
	}
	if h.Offset != uint64(e.off) || h.Length != uint32(e.len) {
		return 0, fmt.Errorf("%w: digest of %d+%d where %d+%d was due", wire.ErrCorrupt, h.Offset, h.Length, e.off, e.len)
	}
	out := wire.Header{Kind: wire.KindCopy, Offset: h.Offset, Length: h.Length}
	if e.hole {
		if h.Flags&wire.Zero != 0 {
			return 0, nil
		}
		if l.v.conf.New && !l.known {
			return 0, fmt.Errorf("it holds data and the primary's store is new: nothing was overwritten. If the replica is right, copy its file to the primary's --store; if it is to be emptied, remove its file")
		}
		out.Flags = wire.Zero
		return e.len, fc.write(out, nil)
	}
	data := make([]byte, e.len)
	if err := l.v.conf.Store.ReadAt(data, e.off); err != nil {
		return 0, err
	}
	if ours := sha256.Sum256(data); string(ours[:]) == string(theirs) {
		return 0, nil
	}
	for off := 0; off < len(data); off += wire.MaxPayload {
		part := data[off:min(off+wire.MaxPayload, len(data))]
		out.Offset, out.Length = h.Offset+uint64(off), uint32(len(part))
		if err := fc.write(out, part); err != nil {
			return 0, err
		}
	}
	return e.len, nil
}
