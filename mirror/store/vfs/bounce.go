package vfs

import (
	"sync"
	"unsafe"
)

// buffer is memory whose first byte is aligned as a device asks.
type buffer struct {
	whole []byte
	bytes []byte
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// bounce returns a buffer of n bytes at a multiple of align; free gives it back.
func bounce(n int, align uintptr) *buffer {
	b := buffers.Get().(*buffer)
	if need := n + int(align) - 1; cap(b.whole) < need {
		b.whole = make([]byte, need)
	}
	whole := b.whole[:cap(b.whole)]
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(whole))) % align
	b.bytes = whole[skip:][:n]
	return b
}

func (b *buffer) free() { buffers.Put(b) }
