package nbd

import (
	"sync"
)

const memChunk = 64 << 10

// memory is a sparse in-memory backend. It executes inline in Submit unless
// later is set, and fails requests for which fault returns an error.
type memory struct {
	fault func(*Request) error        // nil: none
	later func(batch []*Request)      // takes over completion; nil: inline
	seen  func(r *Request, err error) // called for each executed request; nil: none

	mu     sync.RWMutex
	chunks map[uint64][]byte // chunk number to memChunk bytes; missing reads as zero
}

func newMemory() *memory { return &memory{chunks: map[uint64][]byte{}} }

func (m *memory) Submit(batch []*Request) {
	for _, r := range batch {
		r.Err = m.execute(r)
		if m.seen != nil {
			m.seen(r, r.Err)
		}
	}
	if m.later != nil {
		m.later(append([]*Request(nil), batch...))
		return
	}
	Complete(batch)
}

func (m *memory) execute(r *Request) error {
	if m.fault != nil {
		if err := m.fault(r); err != nil {
			return err
		}
	}
	switch r.Cmd {
	case CmdRead:
		m.mu.RLock()
		defer m.mu.RUnlock()
		m.each(r.Offset, r.Length, func(n, from, to, at uint64) {
			if c := m.chunks[n]; c != nil {
				copy(r.Data[at:], c[from:to])
			} else {
				clear(r.Data[at : at+to-from])
			}
		})
	case CmdWrite:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.each(r.Offset, r.Length, func(n, from, to, at uint64) {
			if m.chunks[n] == nil {
				m.chunks[n] = make([]byte, memChunk)
			}
			copy(m.chunks[n][from:to], r.Data[at:])
		})
	case CmdTrim, CmdWriteZeroes:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.each(r.Offset, r.Length, func(n, from, to, _ uint64) {
			switch {
			case to-from == memChunk && r.Flags&FlagNoHole == 0:
				delete(m.chunks, n)
			case m.chunks[n] != nil:
				clear(m.chunks[n][from:to])
			case r.Flags&FlagNoHole != 0:
				m.chunks[n] = make([]byte, memChunk)
			}
		})
	case CmdBlockStatus:
		m.mu.RLock()
		defer m.mu.RUnlock()
		m.each(r.Offset, r.Length, func(n, from, to, _ uint64) {
			missing := m.chunks[n] == nil
			r.Extents = append(r.Extents, Extent{Length: to - from, Hole: missing, Zero: missing})
		})
	}
	return nil
}

// each calls f for every chunk that the range touches: chunk n, bytes from to to
// of it, which are at at in the range.
func (m *memory) each(offset, length uint64, f func(n, from, to, at uint64)) {
	for at := uint64(0); at < length; {
		n, from := (offset+at)/memChunk, (offset+at)%memChunk
		to := min(memChunk, from+length-at)
		f(n, from, to, at)
		at += to - from
	}
}
