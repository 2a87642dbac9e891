package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// SectorSize is the unit that is never torn, in bytes.
const SectorSize = 512

// maxSectors is the most that an operation writes: 16 KiB.
const maxSectors = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Plan is all that will be written, from a seed: the same for all that ask.
type Plan struct {
	Seed    uint64
	Sectors int64 // of the volume
}

// Op is one operation: it gives sectors a new content.
type Op struct {
	N           uint64 // its number, from 1
	From, Count int64  // sectors
	Zero        bool   // make them zeroes
	FUA         bool   // promise it when it returns, where the target can
}

// Off is where the operation writes, in bytes.
func (o Op) Off() int64 { return o.From * SectorSize }

// Len is how much it writes, in bytes.
func (o Op) Len() int64 { return o.Count * SectorSize }

func (o Op) covers(sector int64) bool { return sector >= o.From && sector < o.From+o.Count }

// Op is operation n. One in eight makes zeroes, one in four is FUA. Half of them, in the
// first quarter of the volume, come upon each other often.
func (p Plan) Op(n uint64) Op {
	r := rand.New(rand.NewPCG(p.Seed, n))
	within := p.Sectors
	if r.IntN(2) == 0 {
		within = max(within/4, 1)
	}
	o := Op{N: n, Count: min(1+r.Int64N(maxSectors), within), Zero: r.IntN(8) == 0, FUA: r.IntN(4) == 0}
	o.From = r.Int64N(within - o.Count + 1)
	return o
}

// Bytes is what operation o writes.
func (p Plan) Bytes(o Op) []byte {
	buf := make([]byte, o.Len())
	if o.Zero {
		return buf
	}
	for i := range o.Count {
		p.stamp(buf[i*SectorSize:][:SectorSize], o.From+i, o.N)
	}
	return buf
}

func (p Plan) stamp(sector []byte, number int64, op uint64) {
	copy(sector, "LPC1")
	binary.BigEndian.PutUint64(sector[8:], p.Seed)
	binary.BigEndian.PutUint64(sector[16:], uint64(number))
	for at := 24; at < SectorSize; at += 8 {
		binary.BigEndian.PutUint64(sector[at:], op)
	}
	binary.BigEndian.PutUint32(sector[4:], crc32.Checksum(sector[8:], castagnoli))
}

var zeroSector [SectorSize]byte

// writer tells which operation wrote the sector; 0 if it is zeroes. The error says why
// no operation can have left it so.
func (p Plan) writer(sector []byte, number int64) (op uint64, err error) {
	if bytes.Equal(sector, zeroSector[:]) {
		return 0, nil
	}
	seed, at := binary.BigEndian.Uint64(sector[8:]), binary.BigEndian.Uint64(sector[16:])
	switch {
	case string(sector[:4]) != "LPC1":
		return 0, errors.New("it was never written so")
	case binary.BigEndian.Uint32(sector[4:]) != crc32.Checksum(sector[8:], castagnoli):
		return 0, errors.New("it is torn: its checksum is wrong")
	case seed != p.Seed:
		return 0, fmt.Errorf("it is of another run, with seed %d", seed)
	case at != uint64(number):
		return 0, fmt.Errorf("it belongs to sector %d", at)
	}
	return binary.BigEndian.Uint64(sector[24:]), nil
}
