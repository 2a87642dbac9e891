package sim

import (
	"fmt"
	"math"
	"slices"
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
	close time.Duration
}

// check looks for an order of the requests that explains what was read, sector by
// sector.
func (h *history) check() (checked int, err error) {
	bySector := make([][]moment, groups*groupSize)
	var flushes []*record
	for i := range h.records {
		r := &h.records[i]
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
		m := moment{record: r, value: r.value, close: end}
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
	for _, cut := range append(h.cuts(), reign{epoch: math.MaxUint64, first: never}) {
		var piece []moment
		for _, m := range moments {
			if last := m.last(); last >= from && last < cut.epoch {
				piece = append(piece, m)
			}
		}
		if err := checkPiece(sector, piece, allowed); err != nil {
			return err
		}
		allowed = survivors(piece, allowed, flushes, cut)
		from = cut.epoch
	}
	return nil
}

// cuts are the reigns that began with a copy that had lost power, and served.
func (h *history) cuts() (cuts []reign) {
	for _, r := range h.reigns {
		if r.lossy && r.acked {
			cuts = append(cuts, r)
		}
	}
	return cuts
}

// last is the reign that a moment belongs to.
func (m *moment) last() uint64 {
	if m.acked {
		return m.reign
	}
	return m.tried
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
	var ops []porcupine.Operation
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
	switch porcupine.CheckOperationsTimeout(sectorModel(allowed), ops, checkTimeout) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("%w: sector %d with %d requests", errUnknown, sector, len(ops))
	}
	return fmt.Errorf("sector %d: no order explains what was read\n%s", sector, explain(piece, allowed))
}

// explain lists the shortest beginning of a history that is wrong, as far back as
// it matters.
func explain(piece []moment, allowed []uint64) string {
	slices.SortStableFunc(piece, func(a, b moment) int { return int(a.close - b.close) })
	var b strings.Builder
	fmt.Fprintf(&b, "it began with one of %v\n", allowed)
	for _, m := range piece[max(0, len(piece)-explained):] {
		fmt.Fprintf(&b, "  %v: value %d\n", m.record, m.value)
	}
	return b.String()
}

const explained = 40 // moments
