package mirror

import (
	"time"

	"lockstep/mirror/wire"
)

// OpKind is what an Op does.
type OpKind uint8

// The kinds of Op. Every kind but Read gets a seq and goes to every replica.
const (
	Read OpKind = iota
	Write
	Zero
	Flush
	copying // a Copy's place in the order; no client's
)

var opNames = [...]string{Read: "read", Write: "write", Zero: "zero", Flush: "flush", copying: "copy"}

func (k OpKind) String() string { return opNames[k] }

// Op is one request to a volume. The caller fills the exported fields but Err,
// gives it to [Volume.Submit], and gets it back through Config.Complete with
// Err set; in between it belongs to the volume, Data included. An Op may be
// used again after a [Op.Reset].
type Op struct {
	Kind   OpKind
	Off    int64
	Len    int64 // bytes, below 4 GiB; for Read and Write it is len(Data)
	Data   []byte
	FUA    bool    // acknowledge from stable storage at every site
	NoHole bool    // Zero: keep the range allocated
	Origin *Origin // whose it is, if it may be sent again after a failover
	Err    error
	Tag    any // the caller's own

	began    time.Duration // when it was submitted, since started
	internal chan struct{} // closed instead of Config.Complete: the volume's own op

	core   opState
	frames []frame                             // what replicas are sent
	header [originFrame + wire.HeaderSize]byte // of the first one, with its origin before it if it has one
}

// Reset makes a completed op ready for another request; Tag stays.
func (o *Op) Reset() {
	clear(o.frames)
	*o = Op{Tag: o.Tag, frames: o.frames[:0], core: opState{waiters: o.core.waiters[:0]}}
}

// modifies says whether the op changes bytes. A flush does not: it overlaps
// nothing.
func (o *Op) modifies() bool { return o.Kind == Write || o.Kind == Zero }

func (o *Op) end() int64 { return o.Off + o.Len }

func (o *Op) overlaps(p *Op) bool { return o.Off < p.end() && p.Off < o.end() }
