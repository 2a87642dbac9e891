package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// site is a writer and a reader at one site.
type site struct {
	name   string
	writer int
	model  *model
	report func(string) // what was found, for people

	write, read session
	think       time.Duration // between two requests of one worker
	gate        *semaphore.Weighted
	stall       stall

	running sync.WaitGroup
}

// depth is how many writes a site has in flight.
const depth = 4

// flushEvery is how many writes of a worker there are to one flush.
const flushEvery = 64

// workers of a site hold one share each of its gate while a request is in flight.
const workers = depth + 1

// start begins with the gate closed.
func (s *site) start(ctx context.Context) {
	s.gate = semaphore.NewWeighted(workers)
	s.gate.TryAcquire(workers)
	// A call that hangs ends only with its connection.
	context.AfterFunc(ctx, func() {
		s.write.end()
		s.read.end()
	})
	for i := range depth {
		s.running.Go(func() { s.loop(ctx, s.writeOne(i)) })
	}
	s.running.Go(func() { s.loop(ctx, s.readOne()) })
}

func (s *site) loop(ctx context.Context, one func(context.Context)) {
	for s.gate.Acquire(ctx, 1) == nil {
		one(ctx)
		s.gate.Release(1)
		if wait(ctx, s.think) != nil {
			return
		}
	}
}

// resume lets the workers go, pause stops them when their requests are answered,
// or fails when ctx ends before.
func (s *site) resume() {
	s.stall.begin()
	s.gate.Release(workers)
}

func (s *site) pause(ctx context.Context) error {
	if err := s.gate.Acquire(ctx, workers); err != nil {
		return fmt.Errorf("the requests in flight at site %s are not answered: %w", s.name, context.Cause(ctx))
	}
	return nil
}

// writeOne writes a random block of worker i's own.
func (s *site) writeOne(i int) func(context.Context) {
	buf := make([]byte, BlockSize)
	step := int64(depth * s.model.writers)
	mine := int64(len(s.model.blocks)) / step
	var count int
	return func(ctx context.Context) {
		dev, err := s.write.get(ctx)
		if err != nil {
			return
		}
		if count++; count%flushEvery == 0 {
			if dev.Flush() != nil {
				s.write.drop(dev)
			}
			return
		}
		block := rand.Int64N(mine)*step + int64(i*s.model.writers+s.writer)
		if s.model.blocks[block].suspect.Load() {
			return
		}
		generation := s.model.submit(block)
		stamp(buf, s.writer, block, generation)
		if _, err := dev.WriteAt(buf, block*BlockSize); err != nil {
			s.write.drop(dev)
			return
		}
		s.model.acknowledged(block, generation)
		s.stall.acknowledged()
	}
}

// readOne reads what a writer wrote last, or any block.
func (s *site) readOne() func(context.Context) {
	buf := make([]byte, BlockSize)
	return func(ctx context.Context) {
		dev, err := s.read.get(ctx)
		if err != nil {
			return
		}
		block := s.model.newest[rand.IntN(s.model.writers)].Load()
		if block < 0 || rand.IntN(4) == 0 {
			block = rand.Int64N(int64(len(s.model.blocks)))
		}
		floor := s.model.floor(block)
		if _, err := dev.ReadAt(buf, block*BlockSize); err != nil {
			s.read.drop(dev)
			return
		}
		if v := s.model.check(block, floor, buf); v != nil {
			s.model.blocks[block].suspect.Store(true)
			s.report(fmt.Sprintf("wrong read at site %s: %v", s.name, v))
		}
	}
}

// readBack reads the whole volume with nobody writing, and returns the blocks that
// are not as they have to be, with what they hold.
func (s *site) readBack(ctx context.Context) (map[int64][]byte, error) {
	const chunk = 16 // blocks: a reader that floods its path would be a fault of its own
	bad := map[int64][]byte{}
	buf := make([]byte, chunk*BlockSize)
	total := int64(len(s.model.blocks))
	for first := int64(0); first < total; first += chunk {
		part := buf[:min(chunk, total-first)*BlockSize]
		if err := s.readPart(ctx, part, first*BlockSize); err != nil {
			return bad, fmt.Errorf("read back at site %s: %w", s.name, err)
		}
		for i := range int64(len(part) / BlockSize) {
			block := first + i
			p := part[i*BlockSize:][:BlockSize]
			if v := s.model.check(block, s.model.floor(block), p); v != nil {
				bad[block] = append([]byte(nil), p...)
				s.report(fmt.Sprintf("lost, as read back at site %s: %v", s.name, v))
			}
		}
	}
	return bad, nil
}

// readPart reads, over a new connection if the old one broke meanwhile.
func (s *site) readPart(ctx context.Context, p []byte, off int64) error {
	var err error
	for range 2 {
		var dev Device
		if dev, err = s.read.get(ctx); err != nil {
			return err
		}
		if _, err = dev.ReadAt(p, off); err == nil {
			return nil
		}
		s.read.drop(dev)
	}
	return err
}
