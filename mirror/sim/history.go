package sim

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"lockstep/mirror"
)

// record is one request as its client saw it.
type record struct {
	kind           mirror.OpKind
	first, sectors int64
	fua, noHole    bool
	durable        bool   // once acknowledged: by FUA, or by the volume's contract
	value          uint64 // that a write writes to each of its sectors
	call, ret      time.Duration
	acked          bool     // answered without an error
	refused        bool     // answered: nothing of it is done from now on
	reign          uint64   // that acknowledged it
	asked, tried   uint64   // the first and the last reign that was sent it
	values         []uint64 // that a read read
	left           bool     // its client went to another node without an answer
	client         *client  // that was, and
	generation     uint64   // its generation then
}

func (r *record) String() string {
	s := fmt.Sprintf("%v %d+%d", r.kind, r.first, r.sectors)
	switch {
	case r.kind == mirror.Write:
		s += fmt.Sprintf(" value %d fua %v", r.value, r.fua)
	case r.kind == mirror.Read && len(r.values) <= 8:
		s += fmt.Sprint(" -> ", r.values)
	}
	return fmt.Sprintf("[%v, %v] %s, acknowledged %v by reign %d, last sent to %d", r.call, r.ret, s, r.acked, r.reign, r.tried)
}

// history is all that clients saw.
type history struct {
	records []record
	values  uint64 // how many were written
	owner   map[uint64]extent
	reigns  []reign // ascending
}

// extent is where a value was written.
type extent struct{ first, sectors int64 }

// reign is one primary's time from its promotion on.
type reign struct {
	epoch       uint64
	incarnation uint64 // of the volume: a higher one may have forgotten anything
	lossy       bool   // its copy may lack what was not flushed
	forgot      bool   // or anything
	acked       bool
	first       time.Duration // its first acknowledgement
}

// Sectors that are read and written a lot: in groups around the borders of regions.
const (
	groups      = 4
	groupSize   = 16
	groupStride = volumeSize / groups / sectorSize
)

func groupAt(i int64) int64 { return i*groupStride + groupStride/2 - groupSize/2 }

// hot says which number a sector has among those that are checked, -1 for none.
func hot(sector int64) int {
	g := sector / groupStride
	if i := sector - groupAt(g); i >= 0 && i < groupSize {
		return int(g*groupSize + i)
	}
	return -1
}

// makeCall draws a request.
func (c *cluster) makeCall(r *rand.Rand) record {
	q := record{first: groupAt(r.Int64N(groups)) + r.Int64N(groupSize-3), sectors: 1 + r.Int64N(4)}
	switch n := r.IntN(100); {
	case n < c.opt.flushes:
		q.kind, q.first, q.sectors = mirror.Flush, 0, 0
	case n < 16:
		q.kind, q.fua, q.noHole = mirror.Zero, r.IntN(6) == 0, r.IntN(2) == 0
	case n < 58:
		q.kind, q.fua = mirror.Write, r.IntN(6) == 0
	default:
		q.kind = mirror.Read
	}
	if q.kind != mirror.Flush && r.IntN(40) == 0 {
		q.sectors = 100 + r.Int64N(60)
		if r.IntN(8) == 0 {
			q.sectors = 600 + r.Int64N(200)
		}
		q.first = groupAt(r.Int64N(groups)) - r.Int64N(q.sectors-1)
	}
	q.durable = q.fua || c.opt.durable
	if q.kind == mirror.Write {
		c.hist.values++
		q.value = c.hist.values
		c.hist.owner[q.value] = extent{q.first, q.sectors}
	}
	return q
}

func (c *cluster) record(r record) {
	c.trace("client", "%v", &r)
	c.hist.records = append(c.hist.records, r)
	c.stats.count(&r)
}

// began notes a promotion. A copy that counts as whole by the operator's word only
// will even if this reign comes to nothing.
func (c *cluster) began(l *lead) {
	c.hist.reigns = append(c.hist.reigns, reign{epoch: l.reign, incarnation: l.incarnation, forgot: l.n.forgot})
	// Who won may learn of it after who came next.
	slices.SortFunc(c.hist.reigns, func(a, b reign) int { return cmp.Compare(a.epoch, b.epoch) })
	c.stats.Promotions++
	if l.n.forced {
		c.lost(l.reign)
	}
	for _, n := range c.nodes {
		n.forced, n.forgot = false, false
		if o := n.lead; o != nil && o != l && o.reign < l.reign && o.m.Alone() && n.now() < o.leased {
			c.violate("node %d becomes primary, and node %d, alone in sync since epoch %d, has a lease for %v", l.n.id, n.id, o.reign, o.leased-n.now())
		}
	}
}

// lost notes that a reign takes for the truth what a power loss left.
func (c *cluster) lost(epoch uint64) {
	c.hist.reign(epoch).lossy = true
	c.stats.Losses++
}

// reign finds one.
func (h *history) reign(epoch uint64) *reign {
	i := slices.IndexFunc(h.reigns, func(r reign) bool { return r.epoch == epoch })
	return &h.reigns[i]
}

// patternSize is how much of a sector tells which write it is of, and where it
// belongs; the rest repeats that.
const patternSize = 16

// fill makes the data of a write.
func fill(value uint64, first, sectors int64) []byte {
	b := make([]byte, sectors*sectorSize)
	for i := int64(0); i < sectors; i++ {
		s := b[i*sectorSize:][:sectorSize]
		binary.LittleEndian.PutUint64(s, value)
		binary.LittleEndian.PutUint64(s[8:], uint64(first+i))
		for n := patternSize; n < sectorSize; n *= 2 {
			copy(s[n:], s[:n])
		}
	}
	return b
}

// parse reads the values of sectors. One that holds what no write put there is
// a violation.
func (c *cluster) parse(first int64, b []byte) []uint64 {
	values := make([]uint64, len(b)/sectorSize)
	for i := range values {
		v, err := c.hist.valueOf(first+int64(i), b[i*sectorSize:][:sectorSize])
		if err != nil {
			c.violate("%v", err)
		}
		values[i] = v
	}
	return values
}

func (h *history) valueOf(sector int64, b []byte) (uint64, error) {
	v, at := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if !bytes.Equal(b[patternSize:], b[:sectorSize-patternSize]) {
		return v, fmt.Errorf("sector %d is torn: it begins as that of value %d", sector, v)
	}
	if v == 0 && at == 0 {
		return 0, nil
	}
	if e, ok := h.owner[v]; !ok || int64(at) != sector || sector < e.first || sector >= e.first+e.sectors {
		return v, fmt.Errorf("sector %d holds value %d of sector %d, which was never written there", sector, v, at)
	}
	return v, nil
}
