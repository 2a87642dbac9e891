package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"lockstep/mirror"
)

// checkTimeout bounds the search for one sector's order, in real time.
const checkTimeout = 20 * time.Second

// moment is one request's part in one sector's history.
type moment struct {
	*record
	value uint64 // read or written
	acked bool
	close time.Duration // it took effect before, or not at all
}

// check looks for an order of the requests that explains what was read, sector by
// sector.
func (h *history) check() (checked int, err error) {
	bySector := make([][]moment, groups*groupSize)
	var flushes []*record
	for i := range h.records {
		r := &h.records[i]
		if r.left { // what was its node may have sent it to anyone, up to then
			_, r.tried = r.client.superseded(r.generation)
		}
		if r.kind == mirror.Flush {
			if r.acked {
				flushes = append(flushes, r)
			}
			continue
		}
		h.spread(r, bySector)
	}
	for number, moments := range bySector {
		checked += len(moments)
		sector := groupAt(int64(number/groupSize)) + int64(number%groupSize)
		if err := h.checkSector(sector, moments, flushes); err != nil {
			return checked, err
		}
	}
	return checked, nil
}

// spread enters a request into the histories of its sectors.
func (h *history) spread(r *record, bySector [][]moment) {
	if r.kind == mirror.Read && !r.acked || r.tried == 0 {
		return
	}
	end := h.closes(r)
	for i := int64(0); i < r.sectors; i++ {
		n := hot(r.first + i)
		if n < 0 {
			continue
		}
		m := moment{record: r, value: r.value, acked: r.acked, close: end}
		if r.kind == mirror.Read {
			m.value = r.values[i]
		}
		bySector[n] = append(bySector[n], m)
	}
}

const never = time.Duration(math.MaxInt64)

// closes is when a request can have taken effect at the latest. One that was not
// acknowledged is held by the reigns that it was sent to and by nobody else, so
// when a later one acknowledges anything, it is there or is not for good.
func (h *history) closes(r *record) time.Duration {
	if r.acked || r.refused {
		return r.ret
	}
	if r.left {
		at, _ := r.client.superseded(r.generation)
		return max(at, r.call)
	}
	for _, reign := range h.reigns {
		if reign.epoch > r.tried && reign.acked {
			return max(reign.first, r.call)
		}
	}
	return never
}

// checkSector cuts a sector's history where all copies lost power, and checks each
// piece: it begins with any value that the power loss may have left.
func (h *history) checkSector(sector int64, moments []moment, flushes []*record) error {
	allowed := []uint64{0}
	from := uint64(0)
	for _, cut := range append(h.cuts(), cut{reign: reign{epoch: math.MaxUint64, first: never}}) {
		piece := between(moments, from, cut.reign)
		if err := checkPiece(sector, piece, allowed); err != nil {
			return err
		}
		if cut.forgot {
			allowed = written(moments, cut.epoch)
		} else {
			allowed = survivors(piece, allowed, flushes, cut.reign)
		}
		from = cut.epoch
	}
	return nil
}

// cut is a reign that began with less than was acknowledged.
type cut struct {
	reign
	forgot bool // with anything: an operator accepted that
}

// cuts are the first reigns to serve after one began with a copy that had lost
// power, or had not been in sync: that one itself, or who took over from it before it
// served.
func (h *history) cuts() (cuts []cut) {
	lossy, forgot, incarnation := false, false, uint64(0)
	for _, r := range h.reigns {
		lossy, forgot = lossy || r.lossy, forgot || r.forgot || r.incarnation > incarnation
		incarnation = max(incarnation, r.incarnation)
		if r.acked && (lossy || forgot) {
			cuts = append(cuts, cut{r, forgot})
			lossy, forgot = false, false
		}
	}
	return cuts
}

// written are all values that a sector ever had before a reign.
func written(moments []moment, epoch uint64) []uint64 {
	values := []uint64{0}
	for _, m := range moments {
		if m.kind != mirror.Read && m.asked < epoch {
			values = append(values, m.value)
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// between are the moments of the reigns from an epoch on to a cut. A request that was
// sent to reigns on both sides of one may have taken effect on either.
func between(moments []moment, from uint64, cut reign) (piece []moment) {
	for _, m := range moments {
		last := m.tried
		if m.acked {
			last = m.reign
		}
		switch {
		case m.asked >= cut.epoch || last < from:
			continue
		case last >= cut.epoch && m.kind == mirror.Read:
			continue
		case last >= cut.epoch:
			m.acked, m.close = false, max(m.call, cut.first)
		}
		piece = append(piece, m)
	}
	return piece
}

// survivors are the values that a sector may have after a power loss of all copies:
// those not older than what was durable.
func survivors(piece []moment, before []uint64, flushes []*record, cut reign) []uint64 {
	durable := time.Duration(-1) // the latest call of a write that is durable for sure
	for _, m := range piece {
		if m.kind != mirror.Read && m.acked && (m.durable || flushed(m.ret, flushes, cut)) {
			durable = max(durable, m.call)
		}
	}
	var left []uint64
	if durable < 0 {
		left = append(left, before...)
	}
	for _, m := range piece {
		if m.kind != mirror.Read && m.close >= durable {
			left = append(left, m.value)
		}
	}
	slices.Sort(left)
	return slices.Compact(left)
}

// flushed says whether a flush came after a moment and was acknowledged before a cut.
func flushed(ret time.Duration, flushes []*record, cut reign) bool {
	for _, f := range flushes {
		if f.reign < cut.epoch && f.call > ret {
			return true
		}
	}
	return false
}

// state is what a sector may hold in porcupine's model: value, or any that survived
// a power loss; and zero too, if a zeroing of unknown outcome came since.
type state struct {
	value     uint64
	any, zero bool
}

type input struct {
	kind  mirror.OpKind
	value uint64
	maybe bool
}

// sectorModel is one sector, which holds one of the values allowed at first.
func sectorModel(allowed []uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{any: true} },
		Step: func(st, in, _ any) (bool, any) {
			s, op := st.(state), in.(*input)
			switch {
			case op.kind != mirror.Read && op.maybe:
				s.zero = true
				return true, s
			case op.kind != mirror.Read:
				return true, state{value: op.value}
			case !s.any && s.value == op.value, s.zero && op.value == 0, s.any && slices.Contains(allowed, op.value):
				return true, state{value: op.value}
			}
			return false, s
		},
	}
}

// checkPiece checks one sector between power losses. A write of unknown outcome
// that nobody read counts as one that did not take effect; one that was read, as one
// that did. Zeroes cannot be told apart, so there the model keeps both.
func checkPiece(sector int64, piece []moment, allowed []uint64) error {
	read := map[uint64]bool{}
	for _, m := range piece {
		if m.kind == mirror.Read {
			read[m.value] = true
		}
	}
	model := sectorModel(allowed)
	ops := operations(piece, read)
	switch porcupine.CheckOperationsTimeout(model, ops, checkTimeout) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("%w: sector %d with %d requests", errUnknown, sector, len(ops))
	}
	return fmt.Errorf("sector %d: no order explains what was read\n%s", sector, explain(piece, read, allowed))
}

func operations(piece []moment, read map[uint64]bool) (ops []porcupine.Operation) {
	for _, m := range piece {
		maybe := !m.acked
		if m.kind == mirror.Write && maybe && !read[m.value] {
			continue
		}
		ops = append(ops, porcupine.Operation{
			Input: &input{kind: m.kind, value: m.value, maybe: maybe && m.kind == mirror.Zero},
			Call:  int64(m.call), Return: int64(m.close),
		})
	}
	return ops
}

// explain names the first read that no order explains, and what was before it.
func explain(piece []moment, read map[uint64]bool, allowed []uint64) string {
	slices.SortStableFunc(piece, func(a, b moment) int { return cmp.Compare(a.call, b.call) })
	upTo := func(end time.Duration) (part []moment) {
		for _, m := range piece {
			if m.kind != mirror.Read || m.ret <= end {
				part = append(part, m)
			}
		}
		return part
	}
	var ends []time.Duration
	for _, m := range piece {
		if m.kind == mirror.Read {
			ends = append(ends, m.ret)
		}
	}
	slices.Sort(ends)
	i := sort.Search(len(ends), func(i int) bool {
		return porcupine.CheckOperationsTimeout(sectorModel(allowed), operations(upTo(ends[i]), read), checkTimeout) == porcupine.Illegal
	})
	if i == len(ends) {
		return "which read is wrong was not found"
	}
	var lines []string
	for _, m := range upTo(ends[i]) {
		if m.call <= ends[i] {
			lines = append(lines, fmt.Sprintf("  %v, here value %d, closed at %v", m.record, m.value, m.close))
		}
	}
	return fmt.Sprintf("it began with one of %v; the read that ends at %v cannot be\n%s", allowed, ends[i], strings.Join(lines[max(0, len(lines)-explained):], "\n"))
}

const explained = 20 // moments
