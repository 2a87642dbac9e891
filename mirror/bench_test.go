package mirror

import (
	"fmt"
	"testing"

	"lockstep/mirror/store"
)

// BenchmarkStep is the machine's part of a write with one replica: submitted,
// applied, acknowledged.
func BenchmarkStep(b *testing.B) {
	for _, depth := range []int{1, 32, 1024} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			m := NewMachine(MachineConfig{Members: SetOf(0, 1), Size: 1 << 40, Block: blockSize, Region: 4 << 20})
			own := &Promotion{State: ReplicaState{Complete: true, Known: true}}
			m.Step(Event{Kind: EvCommitted, Conf: Configuration{Epoch: 1, InSync: SetOf(0, 1)}, Own: own})
			m.Step(Event{Kind: EvUp, Replica: 1, State: &ReplicaState{Complete: true, Known: true}})
			m.Step(Event{Kind: EvFinished, Replica: 1})
			m.Step(Event{Kind: EvFinished, Replica: 0})
			if !m.Ready() {
				b.Fatal("not ready")
			}
			ops := make([]Op, depth)
			b.ReportAllocs()
			for n := 0; b.Loop(); n += depth {
				for i := range ops {
					ops[i].Reset()
					ops[i].Kind, ops[i].Off, ops[i].Len = Write, int64(i)<<20, 4096
					m.Step(Event{Kind: EvSubmit, Op: &ops[i]})
				}
				for i := range ops {
					m.Step(Event{Kind: EvApplied, Op: &ops[i]})
				}
				m.Step(Event{Kind: EvAcked, Replica: 1, Applied: m.window.last()})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(depth), "ns/write")
		})
	}
}

// BenchmarkCut is the checksum and the layout of a write's frames.
func BenchmarkCut(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			op := &Op{Kind: Write, Len: int64(size), Data: make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				op.cut()
			}
		})
	}
}

// BenchmarkReplicaFrames is a replica's part: decode, check, apply.
func BenchmarkReplicaFrames(b *testing.B) {
	op := &Op{Kind: Write, Len: 4096, Data: make([]byte, 4096)}
	op.cut()
	op.encode(1, 0)
	input := append(append([]byte(nil), op.frames[0].header...), op.Data...)
	s := admitted(b, deafSocket(b), nowhere{memStore(b)})
	b.SetBytes(4096)
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		op.core.seq, op.core.encoded = seq, false
		copy(input, op.encode(1, 0)[0].header)
		if _, _, err := s.frames(input); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite is a whole mirrored write at depth 1 and 32, over loopback TCP to
// a replica in this process; and what it costs more if it may be sent again after a
// failover, as all writes to a cluster.
func BenchmarkWrite(b *testing.B) {
	for _, depth := range []int{1, 32} {
		for _, origins := range []bool{false, true} {
			b.Run(fmt.Sprintf("depth=%d/origins=%v", depth, origins), func(b *testing.B) {
				v, ops, done := benchVolume(b, depth)
				from := make([]Origin, depth)
				number := uint64(0)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					lowest := number + 1
					for i, op := range ops {
						op.Reset()
						op.Kind, op.Len, op.Data = Write, 4096, benchData
						if origins {
							number++
							from[i] = Origin{Session: 1, Number: number, Lowest: lowest}
							op.Origin = &from[i]
						}
					}
					v.Submit(ops)
					for range ops {
						<-done
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(depth), "ns/write")
			})
		}
	}
}

var benchData = make([]byte, 4096)

func benchVolume(b *testing.B, depth int) (*Volume, []*Op, chan struct{}) {
	b.Helper()
	site := startBenchSite(b)
	done := make(chan struct{}, depth)
	v, err := Open(Config{Store: nowhere{memStore(b)}, Replicas: []string{site}, Complete: func(ops []*Op) {
		for range ops {
			done <- struct{}{}
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(v.Close)
	if err := v.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	ops := make([]*Op, depth)
	for i := range ops {
		ops[i] = new(Op)
	}
	return v, ops, done
}

func startBenchSite(b *testing.B) string {
	b.Helper()
	ln, err := Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- NewReplica(ReplicaConfig{Store: nowhere{memStore(b)}}).Serve(b.Context(), ln) }()
	b.Cleanup(func() {
		if err := <-over; err != nil {
			b.Error(err)
		}
	})
	return ln.Addr().String()
}

// nowhere is a store whose data costs nothing and is not kept.
type nowhere struct{ *store.Store }

func (nowhere) ReadAt(p []byte, _ int64) error           { clear(p); return nil }
func (nowhere) ReadCached(p []byte, _ int64) error       { clear(p); return nil }
func (nowhere) WriteAt([]byte, int64) error              { return nil }
func (nowhere) Zero(int64, int64, bool) error            { return nil }
func (nowhere) Ready(int64, int64) bool                  { return true }
func (nowhere) Sync() error                              { return nil }
func (nowhere) Data(int64) (start, end int64, err error) { return testSize, testSize, nil }
