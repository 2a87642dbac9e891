package forward

import "lockstep/mirror"

// Submitter does ops and gives each back exactly once, through [Dispatch]. A
// [mirror.Volume] is one whose Config.Complete is Dispatch.
type Submitter interface {
	Submit(ops []*mirror.Op)
}

// Sink gets completed ops back. The slice is the caller's again when it returns.
type Sink interface {
	Complete(ops []*mirror.Op)
}

// Tag is what the Tag of every op holds that is given to a [Submitter]: it knows
// whose the op is.
type Tag interface {
	Sink() Sink
}

// Dispatch gives completed ops to those whose they are, those of one Sink
// together. It reorders ops, allocates nothing and does not keep the slice.
func Dispatch(ops []*mirror.Op) {
	for len(ops) > 0 {
		sink, n := sinkOf(ops[0]), 1
		for i := 1; i < len(ops); i++ {
			if sinkOf(ops[i]) == sink {
				ops[i], ops[n] = ops[n], ops[i]
				n++
			}
		}
		sink.Complete(ops[:n])
		ops = ops[n:]
	}
}

func sinkOf(op *mirror.Op) Sink {
	return op.Tag.(Tag).Sink() //nolint:errcheck // a Submitter is given no other
}
