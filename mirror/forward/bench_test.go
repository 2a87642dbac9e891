package forward

import (
	"fmt"
	"testing"

	"lockstep/mirror"
)

// instant is a volume that does nothing, at once.
type instant struct{}

func (instant) Submit(ops []*mirror.Op) { Dispatch(ops) }

// held gives ops back when the benchmark says so.
type held struct{ ops []*mirror.Op }

func (h *held) Submit(ops []*mirror.Op) { h.ops = append(h.ops, ops...) }

func (h *held) complete() {
	ops := h.ops
	h.ops = h.ops[len(h.ops):]
	Dispatch(ops)
	h.ops = ops[:0]
}

// BenchmarkLocal is what a Front adds to an op at the primary's own node.
func BenchmarkLocal(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			h := new(held)
			f := NewFront(FrontConfig{Size: testSize, Complete: func([]*mirror.Op) {}})
			f.Route(Route{Volume: h})
			ops := make([]*mirror.Op, depth)
			for i := range ops {
				ops[i] = &mirror.Op{Kind: mirror.Write, Data: make([]byte, 4096), Len: 4096}
			}
			b.ReportAllocs()
			for b.Loop() {
				f.Submit(ops)
				h.complete()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/request")
		})
	}
}

// BenchmarkForward is a 4 KiB request's way to another node and back, over loopback,
// with a volume that takes no time.
func BenchmarkForward(b *testing.B) {
	for _, kind := range []mirror.OpKind{mirror.Write, mirror.Read} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%v/depth=%d", kind, depth), func(b *testing.B) { benchmarkForward(b, kind, depth) })
		}
	}
}

func benchmarkForward(b *testing.B, kind mirror.OpKind, depth int) {
	n := newFakeNode(b)
	n.server, n.submit = NewServer(ServerConfig{Size: testSize}), instant{}
	done := make(chan *mirror.Op, depth)
	f := NewFront(FrontConfig{Size: testSize, Dial: dialPlain, Complete: func(ops []*mirror.Op) {
		for _, op := range ops {
			done <- op
		}
	}})
	f.Route(Route{Addr: n.l.Addr().String()})
	defer f.Close()
	one := make([]*mirror.Op, 1)
	for i := range depth {
		one[0] = &mirror.Op{Kind: kind, Off: int64(i) * 4096, Data: make([]byte, 4096), Len: 4096}
		f.Submit(one)
	}
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		op := <-done
		if op.Err != nil {
			b.Fatal(op.Err)
		}
		one[0] = op
		f.Submit(one)
	}
	for range depth {
		<-done
	}
}
