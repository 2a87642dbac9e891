package drill

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	// BlockSize is what a writer writes at once, in bytes.
	BlockSize  = 4096
	sectorSize = 512
)

var (
	magic      = []byte("lksdrill")
	zeroes     = make([]byte, sectorSize)
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// stamp fills a block.
func stamp(p []byte, writer int, block int64, generation uint64) {
	for i := range BlockSize / sectorSize {
		s := p[i*sectorSize:][:sectorSize]
		copy(s, magic)
		binary.LittleEndian.PutUint64(s[8:], uint64(block))
		binary.LittleEndian.PutUint64(s[16:], generation)
		binary.LittleEndian.PutUint32(s[24:], uint32(writer))
		binary.LittleEndian.PutUint32(s[28:], uint32(i))
		for j := 32; j < sectorSize-4; j += 4 {
			binary.LittleEndian.PutUint32(s[j:], uint32(generation)*2654435761+uint32(j))
		}
		binary.LittleEndian.PutUint32(s[sectorSize-4:], crc32.Checksum(s[:sectorSize-4], castagnoli))
	}
}

// unstamp returns the lowest and the highest generation of a block's sectors.
func unstamp(p []byte, writer int, block int64) (low, high uint64, err error) {
	for i := range BlockSize / sectorSize {
		g, err := unstampSector(p[i*sectorSize:][:sectorSize], writer, block, i)
		if err != nil {
			return 0, 0, fmt.Errorf("block %d, sector %d: %w", block, i, err)
		}
		if i == 0 {
			low = g
		}
		low, high = min(low, g), max(high, g)
	}
	return low, high, nil
}

func unstampSector(s []byte, writer int, block int64, sector int) (uint64, error) {
	if bytes.Equal(s, zeroes) {
		return 0, nil
	}
	if crc32.Checksum(s[:sectorSize-4], castagnoli) != binary.LittleEndian.Uint32(s[sectorSize-4:]) || !bytes.HasPrefix(s, magic) {
		return 0, fmt.Errorf("damaged: it begins with %x", s[:32])
	}
	b, w, n := int64(binary.LittleEndian.Uint64(s[8:])), int(binary.LittleEndian.Uint32(s[24:])), int(binary.LittleEndian.Uint32(s[28:]))
	if b != block || w != writer || n != sector {
		return 0, fmt.Errorf("it is sector %d of block %d by writer %d", n, b, w)
	}
	return binary.LittleEndian.Uint64(s[16:]), nil
}
