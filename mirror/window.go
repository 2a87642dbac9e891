package mirror

// window holds the ops that have a seq, from the first incomplete one on, in a
// ring that grows by doubling. Completed ops leave a nil behind until the
// watermark passes them.
type window struct {
	first uint64 // lowest seq that is not complete
	ring  []*Op  // seq s is at s % len(ring); len is a power of two
	count int    // seqs held: first to first+count-1
}

func (w *window) len() int { return w.count }

// last is the highest seq given out.
func (w *window) last() uint64 { return w.first + uint64(w.count) - 1 }

func (w *window) slot(seq uint64) *(*Op) { return &w.ring[seq&uint64(len(w.ring)-1)] }

// push gives op the next seq.
func (w *window) push(op *Op) uint64 {
	if w.count == len(w.ring) {
		w.grow()
	}
	seq := w.first + uint64(w.count)
	w.count++
	*w.slot(seq) = op
	return seq
}

func (w *window) grow() {
	old := *w
	w.ring = make([]*Op, max(64, 2*len(old.ring)))
	for seq := old.first; seq < old.first+uint64(old.count); seq++ {
		*w.slot(seq) = *old.slot(seq)
	}
}

// at returns the op with that seq, nil if it is complete or was never given.
func (w *window) at(seq uint64) *Op {
	if seq < w.first || seq > w.last() {
		return nil
	}
	return *w.slot(seq)
}

// complete forgets seq and moves the watermark past every completed one.
func (w *window) complete(seq uint64) {
	*w.slot(seq) = nil
	for w.count > 0 && *w.slot(w.first) == nil {
		w.first++
		w.count--
	}
}
