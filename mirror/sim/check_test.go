package sim

import (
	"strings"
	"testing"
	"time"

	"lockstep/mirror"
)

// The histories here are of one sector. Times are in milliseconds.
var sector = groupAt(0)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func wrote(value uint64, call, ret int, reign uint64) record {
	return record{kind: mirror.Write, first: sector, sectors: 1, value: value, call: ms(call), ret: ms(ret), acked: true, reign: reign, asked: reign, tried: reign}
}

// lost is a write without an answer, which reigns asked to tried were sent.
func lost(value uint64, call, ret int, asked, tried uint64) record {
	r := wrote(value, call, ret, 0)
	r.acked, r.asked, r.tried = false, asked, tried
	return r
}

func read(value uint64, call, ret int, reign uint64) record {
	r := wrote(0, call, ret, reign)
	r.kind, r.values = mirror.Read, []uint64{value}
	return r
}

func flushedAt(call, ret int, reign uint64) record {
	return record{kind: mirror.Flush, call: ms(call), ret: ms(ret), acked: true, reign: reign, asked: reign, tried: reign}
}

func zeroed(r record) record {
	r.kind, r.value = mirror.Zero, 0
	return r
}

func fua(r record) record {
	r.fua, r.durable = true, true
	return r
}

func refused(r record) record {
	r.refused = true
	return r
}

// reignOf is a reign that served from a moment on.
func reignOf(epoch uint64, first int) reign {
	return reign{epoch: epoch, acked: true, first: ms(first)}
}

func lossy(r reign) reign {
	r.lossy = true
	return r
}

// TestChecker: the checker takes what a disk may do, and nothing else.
func TestChecker(t *testing.T) {
	one := []reign{reignOf(1, 0)}
	two := []reign{reignOf(1, 0), reignOf(2, 100)}
	blackout := []reign{reignOf(1, 0), lossy(reignOf(2, 100))}
	for _, c := range []struct {
		name    string
		reigns  []reign
		records []record
		wrong   bool
	}{
		{"what was written is read", one, []record{wrote(1, 0, 10, 1), read(1, 20, 30, 1)}, false},
		{"an acknowledged write is not there", one, []record{wrote(1, 0, 10, 1), read(0, 20, 30, 1)}, true},
		{"what was never written is read", one, []record{wrote(1, 0, 10, 1), read(7, 20, 30, 1)}, true},
		{"an old value after a newer one", one, []record{wrote(1, 0, 10, 1), wrote(2, 20, 30, 1), read(1, 40, 50, 1)}, true},
		{"of two writes at a time either is last", one, []record{wrote(1, 0, 10, 1), wrote(2, 5, 12, 1), read(1, 20, 30, 1)}, false},
		{"but it stays so", one, []record{wrote(1, 0, 10, 1), wrote(2, 5, 12, 1), read(1, 20, 30, 1), read(2, 40, 50, 1)}, true},
		{"a read sees a write that is under way", one, []record{wrote(1, 0, 50, 1), read(1, 20, 30, 1)}, false},
		{"and is not taken back", one, []record{wrote(1, 0, 50, 1), read(1, 20, 30, 1), read(0, 35, 40, 1)}, true},

		{"a lost write took effect", one, []record{lost(1, 0, 10, 1, 1), read(1, 20, 30, 1)}, false},
		{"a lost write did not", one, []record{lost(1, 0, 10, 1, 1), read(0, 20, 30, 1)}, false},
		{"a lost write takes effect late", one, []record{lost(1, 0, 10, 1, 1), read(0, 20, 30, 1), read(1, 40, 50, 1)}, false},
		{"a lost write is taken back", one, []record{lost(1, 0, 10, 1, 1), read(1, 20, 30, 1), read(0, 40, 50, 1)}, true},
		{"a lost write lands after the next reign served", two, []record{lost(1, 0, 10, 1, 1), read(0, 110, 120, 2), read(1, 140, 150, 2)}, true},
		{"a lost write lands on a newer one after the next reign served", two, []record{lost(1, 0, 10, 1, 1), wrote(2, 110, 120, 2), read(1, 140, 150, 2)}, true},
		{"a refused write lands after it was refused", one, []record{refused(lost(1, 0, 10, 1, 1)), read(0, 20, 30, 1), read(1, 40, 50, 1)}, true},

		{"a lost zeroing took effect", one, []record{wrote(1, 0, 5, 1), zeroed(lost(0, 10, 12, 1, 1)), read(0, 20, 30, 1)}, false},
		{"a lost zeroing did not", one, []record{wrote(1, 0, 5, 1), zeroed(lost(0, 10, 12, 1, 1)), read(1, 20, 30, 1)}, false},
		{"a lost zeroing is taken back", one, []record{wrote(1, 0, 5, 1), zeroed(lost(0, 10, 12, 1, 1)), read(0, 20, 30, 1), read(1, 40, 50, 1)}, true},
		{"zeroes come from nowhere", one, []record{wrote(1, 0, 5, 1), read(0, 20, 30, 1)}, true},

		{"a failover loses a write", two, []record{wrote(1, 0, 10, 1), read(0, 120, 130, 2)}, true},
		{"a power loss may take what was not flushed", blackout, []record{wrote(1, 0, 10, 1), read(0, 120, 130, 2)}, false},
		{"or not", blackout, []record{wrote(1, 0, 10, 1), read(1, 120, 130, 2)}, false},
		{"but then it stays so", blackout, []record{wrote(1, 0, 10, 1), read(0, 120, 130, 2), read(1, 140, 150, 2)}, true},
		{"a power loss takes what was flushed", blackout, []record{wrote(1, 0, 10, 1), flushedAt(20, 30, 1), read(0, 120, 130, 2)}, true},
		{"a flush that came before the write's end says nothing", blackout, []record{wrote(1, 0, 10, 1), flushedAt(5, 30, 1), read(0, 120, 130, 2)}, false},
		{"a power loss takes what was written by FUA", blackout, []record{fua(wrote(1, 0, 10, 1)), read(0, 120, 130, 2)}, true},
		{"a power loss goes back to a value between", blackout, []record{wrote(1, 0, 10, 1), flushedAt(20, 30, 1), wrote(2, 40, 50, 1), wrote(3, 60, 70, 1), read(2, 120, 130, 2)}, false},
		{"a lost write survives a power loss", blackout, []record{wrote(1, 0, 10, 1), flushedAt(20, 30, 1), lost(2, 40, 50, 1, 1), read(2, 120, 130, 2)}, false},
		{"what a power loss took was read before, of a write sent on both sides", blackout, []record{refused(lost(1, 0, 130, 1, 2)), read(1, 20, 30, 1), read(0, 140, 150, 2)}, false},
		{"who took over from a copy that had lost power has no more", []reign{reignOf(1, 0), {epoch: 2, lossy: true}, reignOf(3, 100)}, []record{wrote(1, 0, 10, 1), read(0, 120, 130, 3)}, false},
	} {
		h := history{records: c.records, reigns: c.reigns}
		checked, err := h.check()
		switch {
		case (err != nil) != c.wrong:
			t.Errorf("%s: %v", c.name, err)
		case checked == 0:
			t.Errorf("%s: nothing was checked", c.name)
		case err != nil && !strings.Contains(err.Error(), "the read that ends at"):
			t.Errorf("%s: the error names no read: %v", c.name, err)
		}
	}
}

// TestSectors: data says which write it is of, and nothing else passes for it.
func TestSectors(t *testing.T) {
	h := &history{owner: map[uint64]extent{5: {10, 2}}}
	data := fill(5, 10, 2)
	if v, err := h.valueOf(11, data[sectorSize:]); v != 5 || err != nil {
		t.Errorf("value %d, %v", v, err)
	}
	if v, err := h.valueOf(3, make([]byte, sectorSize)); v != 0 || err != nil {
		t.Errorf("zeroes are value %d, %v", v, err)
	}
	if _, err := h.valueOf(10, data[sectorSize:]); err == nil {
		t.Error("a sector passes for another")
	}
	if _, err := h.valueOf(12, fill(5, 12, 1)); err == nil {
		t.Error("a value passes where it was not written")
	}
	if _, err := h.valueOf(10, fill(6, 10, 1)); err == nil {
		t.Error("a value passes that was not written")
	}
	data[sectorSize-1] ^= 1
	if _, err := h.valueOf(10, data[:sectorSize]); err == nil {
		t.Error("a torn sector passes")
	}
}
