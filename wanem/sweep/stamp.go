package sweep

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// A block as the load writes it, integers little-endian:
//
//	offset size
//	     0    8  "LKSTPBLK"
//	     8    8  seed of the trial
//	    16    8  offset on the volume
//	    24    8  sequence number of this write by its writer, from 1
//	    32    4  writer, from 0
//	    36    4  block size
//	    40    4  CRC-32C of the block with this field zero
//	    44    …  bytes of a pool, from a place that depends on all of the above
const (
	stampMagic  = "LKSTPBLK"
	stampCRCAt  = 40
	stampSize   = 44
	poolSpread  = 64 << 10 // different starting places within the pool
	minStamping = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamper fills blocks. It is read-only once made, so any number may use it.
type stamper struct {
	seed uint64
	pool []byte
}

func newStamper(seed uint64, blockSize int) *stamper {
	pool := make([]byte, blockSize+poolSpread+8)
	random := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	for i := 0; i+8 <= len(pool); i += 8 {
		binary.LittleEndian.PutUint64(pool[i:], random.Uint64())
	}
	return &stamper{seed: seed, pool: pool}
}

// fill makes p the block of that offset, sequence number and writer.
func (s *stamper) fill(p []byte, offset int64, seq uint64, writer int) {
	le := binary.LittleEndian
	copy(p, stampMagic)
	le.PutUint64(p[8:], s.seed)
	le.PutUint64(p[16:], uint64(offset))
	le.PutUint64(p[24:], seq)
	le.PutUint32(p[32:], uint32(writer))
	le.PutUint32(p[36:], uint32(len(p)))
	le.PutUint32(p[stampCRCAt:], 0)
	from := (uint64(offset)/minStamping*31 + seq*17 + uint64(writer)) % poolSpread
	copy(p[stampSize:], s.pool[from:])
	le.PutUint32(p[stampCRCAt:], crc32.Checksum(p, castagnoli))
}

// describe says what a block holds that should have held something else.
func describe(p []byte) string {
	le := binary.LittleEndian
	if !bytes.HasPrefix(p, []byte(stampMagic)) {
		if len(bytes.Trim(p, "\x00")) == 0 {
			return "zeros"
		}
		return fmt.Sprintf("no block of this load (begins with % x)", p[:16])
	}
	text := fmt.Sprintf("write %d of writer %d to offset %d, seed %d",
		le.Uint64(p[24:]), le.Uint32(p[32:]), le.Uint64(p[16:]), le.Uint64(p[8:]))
	sum := le.Uint32(p[stampCRCAt:])
	intact := bytes.Clone(p)
	le.PutUint32(intact[stampCRCAt:], 0)
	if crc32.Checksum(intact, castagnoli) != sum {
		text += ", torn or damaged: its checksum is wrong"
	}
	return text
}
