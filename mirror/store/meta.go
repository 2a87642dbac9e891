package store

import (
	"encoding/binary"
	"fmt"
)

// maxWhy bounds Meta.Why and Meta.Broken, in bytes.
const maxWhy = 200

// Meta is what a store knows of itself.
type Meta struct {
	// Volume is whose copy this is, zero until someone says so with Update.
	Volume [16]byte
	// Replica is this copy's own ID, random.
	Replica [16]byte
	// Size, Region and Block are those of Options, in bytes. Only Options.Grow changes
	// Size, and nothing the others.
	Size, Region, Block int64
	// Epoch is the highest configuration seen, Incarnation the volume's life it
	// belongs to. It is the caller's word that they never go back.
	Epoch, Incarnation uint64
	// Complete says that this is a full copy. It is not while it is being
	// resynced, nor after a power loss; Why says which, in at most 200 bytes.
	Complete bool
	Why      string
	// Lossy says that it was a full copy until its machine lost power: a write
	// that was acknowledged here may be gone. Open sets it, Update clears it.
	Lossy bool
	// Clean says that CloseClean was the last to touch the store; it is never
	// set while the store is open.
	Clean bool
	// Boot is the start of the machine in which the store was last opened.
	Boot [16]byte
	// Broken says why the store is broken, if it is. It is a record of its own.
	Broken string

	// blank: no write was ever begun, so the data, which may be yet to be
	// given its size, holds nothing.
	blank bool
	// growing: the data may be larger than Size, by what a growth that did not end
	// gave it.
	growing bool
}

// The format of the record "meta"; doc.go has the table.
const (
	metaRecord = "meta"
	metaMagic  = 0x4c534d31 // "LSM1"
	metaFixed  = 96

	metaComplete = 1 << 0
	metaClean    = 1 << 1
	metaBlank    = 1 << 2
	metaLossy    = 1 << 3
	metaGrowing  = 1 << 4

	metaFlags = metaComplete | metaClean | metaBlank | metaLossy | metaGrowing
)

func (m Meta) encode() []byte {
	var flags byte
	for bit, set := range map[byte]bool{
		metaComplete: m.Complete, metaClean: m.Clean, metaBlank: m.blank, metaLossy: m.Lossy, metaGrowing: m.growing,
	} {
		if set {
			flags |= bit
		}
	}
	p := make([]byte, metaFixed, metaFixed+len(m.Why))
	big := binary.BigEndian
	big.PutUint32(p, metaMagic)
	p[4] = flags
	big.PutUint16(p[6:], uint16(len(m.Why)))
	copy(p[8:], m.Volume[:])
	copy(p[24:], m.Replica[:])
	copy(p[40:], m.Boot[:])
	big.PutUint64(p[56:], uint64(m.Size))
	big.PutUint32(p[64:], uint32(m.Region))
	big.PutUint32(p[68:], uint32(m.Block))
	big.PutUint64(p[72:], m.Epoch)
	big.PutUint64(p[80:], m.Incarnation)
	return append(p, m.Why...)
}

func decodeMeta(p []byte) (m Meta, err error) {
	if len(p) < metaFixed {
		return m, fmt.Errorf("%w: %d bytes are no metadata", ErrCorrupt, len(p))
	}
	big := binary.BigEndian
	if magic := big.Uint32(p); magic != metaMagic {
		return m, fmt.Errorf("%w: metadata's magic is %08x, not %08x", ErrCorrupt, magic, metaMagic)
	}
	flags := p[4]
	m = Meta{
		Volume: [16]byte(p[8:]), Replica: [16]byte(p[24:]), Boot: [16]byte(p[40:]),
		Size: int64(big.Uint64(p[56:])), Region: int64(big.Uint32(p[64:])), Block: int64(big.Uint32(p[68:])),
		Epoch: big.Uint64(p[72:]), Incarnation: big.Uint64(p[80:]),
		Complete: flags&metaComplete != 0, Clean: flags&metaClean != 0, blank: flags&metaBlank != 0, Lossy: flags&metaLossy != 0,
		growing: flags&metaGrowing != 0,
		Why:     string(p[metaFixed:]),
	}
	switch why := int(big.Uint16(p[6:])); {
	case flags&^metaFlags != 0:
		return m, fmt.Errorf("%w: flags are %02x: from a newer version?", ErrCorrupt, flags)
	case why != len(m.Why) || why > maxWhy:
		return m, fmt.Errorf("%w: why has %d bytes, said to be %d of at most %d", ErrCorrupt, len(m.Why), why, maxWhy)
	}
	if err := (Options{Size: m.Size, Region: m.Region, Block: m.Block}).validate(); err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

// Meta returns what the store knows of itself now.
func (s *Store) Meta() Meta {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return s.meta
}

// Update changes the metadata: durable when it returns, and the old or the new
// whole at any time. After an error the store goes on with the old, but the disk
// may hold either. change must neither block nor call the store; what it
// does to Size, Region, Block, Clean, Boot and Broken is ignored.
func (s *Store) Update(change func(*Meta)) error {
	return s.update(func(m *Meta) {
		was := *m
		change(m)
		m.Size, m.Region, m.Block = was.Size, was.Region, was.Block
		m.Clean, m.Boot, m.Broken = was.Clean, was.Boot, was.Broken
	})
}

func (s *Store) update(change func(*Meta)) error {
	s.updates.Lock()
	defer s.updates.Unlock()
	was := s.Meta()
	next := was
	change(&next)
	next.Why = next.Why[:min(len(next.Why), maxWhy)]
	if next == was && !s.doubt {
		return nil
	}
	if err := s.WriteRecord(metaRecord, next.encode()); err != nil {
		s.doubt = true
		return err
	}
	s.doubt = false
	s.setMeta(next)
	return nil
}

func (s *Store) setMeta(next Meta) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	next.Broken = s.meta.Broken // may have been set meanwhile
	s.meta = next
	s.blank.Store(next.blank)
}

const whyLossy = "its machine went down without stopping it, so writes that it acknowledged may be lost"

// begin is what opening a store does to m: where the machine is in another life
// than the one that did not close it, the page cache went with that life. A blank
// store had nothing to lose.
func (m *Meta) begin(boot [16]byte) {
	if m.Complete && !m.Clean && !m.blank && m.Boot != boot {
		m.Complete, m.Lossy, m.Why = false, true, whyLossy
	}
	m.Boot, m.Clean = boot, false
}
