package powercut

import "fmt"

// Model is what a volume may hold: for each sector the last operation that
// was promised, or any after it.
type Model struct {
	plan   Plan
	last   uint64   // operation that was begun, at most
	floor  []uint64 // by sector: the last operation that was promised, 0 if none
	zeroed []uint64 // by sector: the last operation of all that made it zeroes, 0 if none
	synced uint64   // all up to it are promised
}

// NewModel returns that of a volume to which nothing was written; the operations from 1 to
// last will be.
func NewModel(p Plan, last uint64) *Model {
	m := &Model{plan: p, last: last, floor: make([]uint64, p.Sectors), zeroed: make([]uint64, p.Sectors)}
	for n := uint64(1); n <= last; n++ {
		if o := p.Op(n); o.Zero {
			o.raise(m.zeroed)
		}
	}
	return m
}

// Synced is the operation up to which all are promised; 0 if none was.
func (m *Model) Synced() uint64 { return m.synced }

// Mark takes what was promised where the log has a mark. Marks of others change nothing.
func (m *Model) Mark(text string) {
	var n uint64
	switch {
	case scan(text, "synced-%d", &n):
		for ; m.synced < n; m.synced++ {
			m.promise(m.plan.Op(m.synced + 1))
		}
	case scan(text, "fua-%d", &n):
		m.promise(m.plan.Op(n))
	}
}

func scan(text, format string, n *uint64) bool {
	got, err := fmt.Sscanf(text, format, n)
	return err == nil && got == 1
}

func (m *Model) promise(o Op) { o.raise(m.floor) }

// raise notes, by sector, that this operation wrote it.
func (o Op) raise(sectors []uint64) {
	for s := o.From; s < o.From+o.Count; s++ {
		sectors[s] = max(sectors[s], o.N)
	}
}

// Loss is a sector that may not hold what it holds.
type Loss struct {
	Sector int64
	Why    string
}

func (l Loss) String() string { return fmt.Sprintf("sector %d: %s", l.Sector, l.Why) }

// Check looks at a sector. ok is false, and the loss says why, if it may not hold this.
func (m *Model) Check(number int64, sector []byte) (_ Loss, ok bool) {
	op, err := m.plan.writer(sector, number)
	if err == nil {
		err = m.allowed(number, op)
	}
	if err != nil {
		return Loss{number, err.Error()}, false
	}
	return Loss{}, true
}

func (m *Model) allowed(number int64, op uint64) error {
	floor := m.floor[number]
	switch {
	case op == 0 && m.zeroed[number] >= floor:
		return nil
	case op == 0:
		return fmt.Errorf("it holds zeroes; operation %d was promised", floor)
	case op < floor:
		return fmt.Errorf("it holds operation %d; operation %d was promised", op, floor)
	case op > m.last:
		return fmt.Errorf("it holds operation %d, of which %d were begun", op, m.last)
	}
	if o := m.plan.Op(op); o.Zero || !o.covers(number) {
		return fmt.Errorf("it holds operation %d, which did not write it", op)
	}
	return nil
}

// Unpromised reports whether the sector is newer than what was promised: then its region
// must have an intent.
func (m *Model) Unpromised(number int64, sector []byte) bool {
	op, err := m.plan.writer(sector, number)
	return err == nil && op > m.floor[number]
}
