package forward

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 4 KiB to MaxLength.
const (
	minClass = 12
	maxClass = 26
)

// buffer is room for one op's data.
type buffer struct {
	class int
	b     []byte
}

var bufferPools [maxClass + 1]sync.Pool

// getBuffer returns a buffer for n bytes, at most MaxLength, with undefined content.
func getBuffer(n int) *buffer {
	class := max(minClass, bits.Len(uint(max(n, 1)-1)))
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{class: class, b: make([]byte, 1<<class)}
}

// putBuffer gives b, which may be nil, back.
func putBuffer(b *buffer) {
	if b != nil {
		bufferPools[b.class].Put(b)
	}
}
