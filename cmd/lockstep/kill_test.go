package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/cmd/lockstep/child"
	"lockstep/cmd/lockstep/target"
	"lockstep/nbd"
)

// killRounds says how often a process is killed; scripts/e2e/kills.sh asks for more.
const killRounds = "LOCKSTEP_KILL_ROUNDS"

// TestKilledUnderLoad kills real processes (SIGKILL) in the middle of writes, one
// or all of them, starts them again, and checks every sector: what was
// acknowledged is there, what was not is old or new and stays so. In the end the
// copies are the same.
func TestKilledUnderLoad(t *testing.T) {
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv(killRounds)); err == nil {
		rounds = n
	}
	for _, policy := range []string{"suspend", "continue"} {
		t.Run(policy, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d, %d rounds", seed, rounds)
			s := newTrio(t, policy, seed)
			for i := range rounds {
				s.round(i)
			}
			s.end()
			t.Logf("%d rounds: %d acknowledged writes, all there; %d sectors checked, %d times all copies compared", rounds, s.acked.Load(), s.checked, s.compared)
		})
	}
}

const (
	killBlocks  = 256 // written at, 4 KiB each, one to a region
	killStride  = 4 << 20
	killSize    = 1 << 30
	killWriters = 16
	killSector  = 512
)

// trio is a primary and two replicas as processes, and what is known of the volume.
type trio struct {
	*testing.T
	rand   *rand.Rand
	dir    string
	policy string
	ports  [2]string
	procs  [3]*child.Process // the primary first

	counter  atomic.Uint64 // numbers writes: each sector holds the number of its last
	phase    atomic.Int64  // which blocks are written first in this round
	acked    atomic.Int64
	checked  int64
	compared int
	low      [killBlocks]uint64                    // acknowledged since the last check
	high     [killBlocks]uint64                    // asked for since then
	known    [killBlocks][4096 / killSector]uint64 // as read at the last check
}

func newTrio(t *testing.T, policy string, seed uint64) *trio {
	s := &trio{T: t, rand: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), policy: policy}
	for i := range s.ports {
		s.ports[i] = freeAddr(t)
	}
	for i := range s.procs {
		s.start(i)
	}
	t.Cleanup(func() {
		for _, p := range s.procs {
			p.Kill()
		}
	})
	return s
}

func (s *trio) file(i int) string { return filepath.Join(s.dir, fmt.Sprintf("%d.img", i)) }

func (s *trio) start(i int) {
	size := strconv.Itoa(killSize)
	args := []string{"serve", "--store=" + s.file(0), "--size=" + size, "--nbd=unix:" + s.socket(),
		"--replica=" + s.ports[0], "--replica=" + s.ports[1], "--timeout=500ms", "--on-replica-loss=" + s.policy, "--loss-timeout=200ms", "--checkpoint=120ms"}
	if i > 0 {
		args = []string{"replica", "--store=" + s.file(i), "--size=" + size, "--listen=" + s.ports[i-1]}
	}
	cmd := lockstepCommand(s.T, args...)
	cmd.Cancel = func() error { return nil } // ended by name
	p, err := child.Start(fmt.Sprintf("process %d", i), filepath.Join(s.dir, fmt.Sprintf("%d.log", i)), cmd)
	if err != nil {
		s.Fatal(err)
	}
	s.procs[i] = p
}

func (s *trio) socket() string { return filepath.Join(s.dir, "nbd") }

// dial connects to the volume, which may be starting.
func (s *trio) dial() *nbd.Client {
	for end := time.Now().Add(30 * time.Second); ; {
		c, err := nbd.Dial(s.Context(), "nbd+unix:///?socket="+s.socket())
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			s.Fatalf("no volume after 30 s: %v; %v", err, s.procs[0].Quote(errors.New("serve")))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// round writes, kills in the middle of it, starts what was killed and checks.
func (s *trio) round(i int) {
	s.Helper()
	s.phase.Store(s.rand.Int64N(8))
	client := s.dial()
	ctx, stop := context.WithCancel(s.Context())
	var writing sync.WaitGroup
	for w := range killWriters {
		r := rand.New(rand.NewPCG(s.rand.Uint64(), uint64(w)))
		writing.Go(func() { s.write(ctx, client, w, r) })
	}
	pause := func(most time.Duration) { time.Sleep(time.Duration(s.rand.Int64N(int64(most)))) }
	pause(400 * time.Millisecond)
	victims := [][]int{{0}, {1}, {2}, {1, 2}, {0, 1, 2}, {0, 2}, {0, 1}, {0, 2}}[s.rand.IntN(8)]
	stopped := s.rand.IntN(4) == 0
	s.rand.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	for _, v := range victims {
		pause(1200 * time.Millisecond) // one after the other: the primary goes on without some, then ends too
		if stopped {                   // for longer than anybody waits, then killed or going on
			s.procs[v].Cmd.Process.Signal(syscall.SIGSTOP)
		} else {
			s.procs[v].Kill()
		}
	}
	pause(600 * time.Millisecond)
	if stopped {
		pause(2 * time.Second)
	}
	for _, v := range victims {
		if stopped && s.rand.IntN(2) == 0 {
			s.procs[v].Cmd.Process.Signal(syscall.SIGCONT)
			continue
		}
		s.procs[v].Kill()
		s.start(v)
	}
	pause(400 * time.Millisecond)
	stop()
	settle := s.dial() // a write that still waits is answered when the volume goes on
	writing.Wait()
	client.Close()
	s.check(i, settle)
	settle.Close()
	if s.rand.IntN(3) > 0 {
		s.awaitSync()
		s.compare()
	}
}

// write writes the blocks of one writer, one at a time, until ctx ends or the
// connection does.
func (s *trio) write(ctx context.Context, c *nbd.Client, writer int, r *rand.Rand) {
	data := make([]byte, 4096)
	for ctx.Err() == nil {
		block := (int(s.phase.Load())+int(time.Now().UnixMilli()/150))%(killBlocks/killWriters)*killWriters + writer // moves on: what was written before is given up by a checkpoint
		n := s.counter.Add(1)
		for off := 0; off < len(data); off += 16 {
			binary.LittleEndian.PutUint64(data[off:], uint64(block))
			binary.LittleEndian.PutUint64(data[off+8:], n)
		}
		var flags nbd.CommandFlags
		if n%64 == 0 {
			flags = nbd.FlagFUA
		}
		s.high[block] = n
		if _, err := c.WriteFlags(data, int64(block)*killStride, flags); err != nil {
			return // of this one nothing is known
		}
		s.low[block] = n
		s.acked.Add(1)
	}
}

// check reads every block: each sector is of the last acknowledged write or of a
// later one, and if none came since the last check, what it was then.
func (s *trio) check(round int, c *nbd.Client) {
	data := make([]byte, 4096)
	for block := range killBlocks {
		if _, err := c.ReadAt(data, int64(block)*killStride); err != nil {
			s.Fatalf("round %d: read block %d: %v", round, block, err)
		}
		for i := range s.known[block] {
			sector := data[i*killSector:][:killSector]
			n := binary.LittleEndian.Uint64(sector[8:])
			low, high := max(s.low[block], s.known[block][i]), max(s.high[block], s.known[block][i])
			if n < low || n > high {
				s.Fatalf("round %d: block %d sector %d is of write %d: acknowledged %d, asked for %d, before %d", round, block, i, n, s.low[block], s.high[block], s.known[block][i])
			}
			for off := 0; off < killSector && n != 0; off += 16 {
				if binary.LittleEndian.Uint64(sector[off:]) != uint64(block) || binary.LittleEndian.Uint64(sector[off+8:]) != n {
					s.Fatalf("round %d: block %d sector %d is torn", round, block, i)
				}
			}
			s.known[block][i] = n
			s.checked++
		}
		s.low[block], s.high[block] = 0, 0
	}
}

// end waits until all are in sync, stops them cleanly and compares the copies.
func (s *trio) end() {
	s.awaitSync()
	for _, p := range s.procs {
		if err := p.Stop(s.Context(), 20*time.Second); err != nil {
			s.Fatal(err)
		}
	}
	s.compare()
}

func (s *trio) compare() {
	s.Helper()
	s.compared++
	for i := 1; i < len(s.procs); i++ {
		if err := target.CompareFiles(s.Context(), s.file(0), s.file(i), killSize); err != nil {
			s.Fatalf("copy %d: %v", i, err)
		}
	}
}

// awaitSync returns when writes need every replica again.
func (s *trio) awaitSync() {
	const all = `in_sync="{0 1 2}"`
	ctx, cancel := context.WithTimeoutCause(s.Context(), 30*time.Second, errors.New("not in sync after 30 s"))
	defer cancel()
	for {
		out := string(s.procs[0].Output())
		if i := strings.LastIndex(out, "in_sync="); i >= 0 && len(out[i:]) >= len(all) && out[i:][:len(all)] == all {
			return
		}
		if err := s.procs[0].Pause(ctx, 20*time.Millisecond); err != nil {
			s.Fatal(err)
		}
	}
}
