package check

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

const (
	headerSize = 20
	sumAt      = 16
	// frameExtra is what IPv4 (20), UDP (8) and Ethernet (14) put before a
	// datagram, as a qdisc counts it.
	frameExtra = 42
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill writes a datagram into b, which is at least headerSize long.
func fill(b []byte, stream, number uint32, sent time.Time) {
	binary.BigEndian.PutUint32(b, stream)
	binary.BigEndian.PutUint32(b[4:], number)
	binary.BigEndian.PutUint64(b[8:], uint64(sent.UnixNano()))
	binary.BigEndian.PutUint32(b[sumAt:], sum(b))
}

// sum is the checksum of all of b but the checksum's own bytes.
func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, b[headerSize:])
}

// parse reads a datagram that should be size long; intact says whether it is
// what was sent.
func parse(b []byte, size int) (stream, number uint32, sent time.Time, intact bool) {
	if len(b) != size || sum(b) != binary.BigEndian.Uint32(b[sumAt:]) {
		return 0, 0, time.Time{}, false
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]),
		time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))), true
}
