package mirror

// recent is what a replica remembers of the writes above its watermark: where
// it may differ from other replicas when the primary is gone. It is bounded; when
// it overflows, the write-intent bitmap stands for it.
type recent struct {
	writes []sentRange // ascending seq
	head   int
	copies []Range // what the primary copied since the last finish
	lostTo uint64  // writes up to this seq were forgotten
	lost   bool    // copies were forgotten, or this run never had it all
}

// maxRecent bounds the memory of a replica's recent writes: 24 bytes each.
const maxRecent = 16 << 10

// add notes a write.
func (r *recent) add(seq uint64, w Range) {
	if len(r.writes) == cap(r.writes) && r.head > 0 {
		r.writes = r.writes[:copy(r.writes, r.writes[r.head:])]
		r.head = 0
	}
	if len(r.writes)-r.head == maxRecent {
		r.lostTo = max(r.lostTo, r.writes[r.head].seq)
		r.head++
	}
	r.writes = append(r.writes, sentRange{seq, w})
}

// copied notes a copy of resync or reconciliation.
func (r *recent) copied(c Range) {
	if len(r.copies) == maxRecent {
		r.lost = true
		return
	}
	r.copies = append(r.copies, c)
}

// trim forgets the writes that every in-sync replica has.
func (r *recent) trim(watermark uint64) {
	for r.head < len(r.writes) && r.writes[r.head].seq <= watermark {
		r.head++
	}
	if r.head == len(r.writes) {
		r.writes, r.head = r.writes[:0], 0
	}
	if r.lostTo <= watermark {
		r.lostTo = 0
	}
}

// keep turns the writes of one primary into ranges that stay until the next
// finish, because the next primary's seqs begin anew.
func (r *recent) keep() {
	for _, w := range r.writes[r.head:] {
		r.copied(w.Range)
	}
	r.lost = r.lost || r.lostTo != 0
	r.writes, r.head, r.lostTo = r.writes[:0], 0, 0
}

// finish forgets what was before the primary made the copies agree. Writes of
// this primary stay.
func (r *recent) finish() { r.copies, r.lost = r.copies[:0], false }

// ranges returns all of it, unless some was forgotten.
func (r *recent) ranges() ([]Range, bool) {
	if r.lost || r.lostTo != 0 {
		return nil, false
	}
	all := append([]Range(nil), r.copies...)
	for _, w := range r.writes[r.head:] {
		all = append(all, w.Range)
	}
	return all, true
}
