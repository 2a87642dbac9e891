package nbd

import (
	"math/bits"
	"sync"
)

// headRoom is the space in front of a buffer's data: a READ's reply header (28
// bytes at most) is put right before the data, so that both leave in one iovec.
// 64 keeps the data aligned to a cache line.
const headRoom = 64

// Buffers come in powers of two from 4 KiB to MaxPayload.
const (
	minClass = 12
	maxClass = 26
)

type buffer struct {
	class int
	b     []byte // headRoom + the class's size
}

var bufferPools [maxClass + 1]sync.Pool

// getBuffer returns a buffer for n bytes of data, at most MaxPayload, with
// undefined content.
func getBuffer(n int) *buffer {
	class := max(minClass, bits.Len(uint(max(n, 1)-1)))
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{class: class, b: make([]byte, headRoom+1<<class)}
}

// putBuffer gives b, which may be nil, back.
func putBuffer(b *buffer) {
	if b != nil {
		bufferPools[b.class].Put(b)
	}
}

func (b *buffer) data(n int) []byte { return b.b[headRoom : headRoom+n : headRoom+n] }

// withHead returns head bytes of room followed by n bytes of data.
func (b *buffer) withHead(head, n int) []byte { return b.b[headRoom-head : headRoom+n] }
