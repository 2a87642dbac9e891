package sweep

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxLatency is the longest latency that a histogram holds; longer ones count as this.
const maxLatency = 60 * time.Second

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(maxLatency), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	// The clamped value is always within the histogram's range.
	_ = h.RecordValue(int64(min(max(d, 1), maxLatency)))
}

// measured is the outcome of one load.
type measured struct {
	latency *hdrhistogram.Histogram // ns
	elapsed time.Duration           // from the window's start to the last return
	late    int64                   // open loop: writes that were due and never started
}

func (m measured) iops() float64 {
	done := float64(m.latency.TotalCount() - m.late)
	return done / m.elapsed.Seconds()
}

// load writes random blocks of a device.
type load struct {
	dev              Device
	ledger           *ledger
	rate             float64 // 0: closed loop
	warmUp, duration time.Duration
	sleep            func(time.Duration) // how the open loop waits for the next due time
}

// writer is one goroutine's share: its own blocks, buffer and histogram.
type writer struct {
	*load
	number int
	seq    uint64
	random *rand.Rand
	buffer []byte
	hist   *hdrhistogram.Histogram
	last   time.Time // when the last counted write returned
}

func (l *load) newWriter(number int) *writer {
	return &writer{
		load: l, number: number,
		random: rand.New(rand.NewPCG(l.ledger.stamps.seed, uint64(number))),
		buffer: aligned(l.ledger.blockSize, pageSize),
		hist:   newHistogram(),
	}
}

// prepare fills the buffer for the next write and returns where it goes.
func (w *writer) prepare() (block, offset int64) {
	block = w.ledger.block(w.number, w.random.Int64N(w.ledger.owned(w.number)))
	offset = w.ledger.offset(block)
	w.seq++
	w.ledger.stamps.fill(w.buffer, offset, w.seq, w.number)
	return block, offset
}

func (w *writer) write(block, offset int64) error {
	if _, err := w.dev.WriteAt(w.buffer, offset); err != nil {
		return fmt.Errorf("write %d bytes at offset %d: %w", len(w.buffer), offset, err)
	}
	w.ledger.seq[block] = w.seq
	return nil
}

// run loads the device with the ledger's number of writers. When ctx ends or a
// write fails it closes the device, so that calls in progress return.
func (l *load) run(ctx context.Context) (measured, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(ctx, func() { l.dev.Close() })()
	start := time.Now().Add(l.warmUp)
	var pace *pacer
	if l.rate > 0 {
		pace = newPacer(l, start)
	}
	writers := make([]*writer, l.ledger.writers)
	var wait sync.WaitGroup
	for i := range writers {
		w := l.newWriter(i)
		writers[i] = w
		wait.Go(func() {
			var err error
			if pace != nil {
				err = w.openLoop(ctx, pace)
			} else {
				err = w.closedLoop(ctx, start)
			}
			if err != nil {
				fail(err)
			}
		})
	}
	if pace != nil {
		pace.run(ctx)
	}
	wait.Wait()
	if ctx.Err() != nil {
		return measured{}, context.Cause(ctx)
	}
	return l.collect(writers, pace, start)
}

func (l *load) collect(writers []*writer, pace *pacer, start time.Time) (measured, error) {
	m := measured{latency: newHistogram()}
	end := start
	for _, w := range writers {
		m.latency.Merge(w.hist)
		if w.last.After(end) {
			end = w.last
		}
	}
	m.elapsed = end.Sub(start)
	if m.latency.TotalCount() == 0 {
		return m, fmt.Errorf("load for %v: not one write began within it: use a longer --duration", l.duration)
	}
	if pace != nil {
		m.late = pace.unstarted(m.latency)
		m.elapsed = max(m.elapsed, l.duration)
	}
	return m, nil
}

func (w *writer) closedLoop(ctx context.Context, start time.Time) error {
	end := start.Add(w.duration)
	for ctx.Err() == nil {
		block, offset := w.prepare()
		began := time.Now()
		if !began.Before(end) {
			return nil
		}
		if err := w.write(block, offset); err != nil {
			return err
		}
		done := time.Now()
		if !began.Before(start) {
			record(w.hist, done.Sub(began))
			w.last = done
		}
	}
	return nil
}

func (w *writer) openLoop(ctx context.Context, pace *pacer) error {
	for due := range pace.due {
		if ctx.Err() != nil {
			continue // the pacer is about to close the channel
		}
		block, offset := w.prepare()
		if err := w.write(block, offset); err != nil {
			return err
		}
		done := time.Now()
		if !due.Before(pace.start) {
			record(w.hist, done.Sub(due))
			w.last = done
		}
	}
	return nil
}

// pacer hands out the due times of an open loop.
type pacer struct {
	due        chan time.Time // unbuffered: who takes one starts at once
	start, end time.Time      // the measured window
	interval   time.Duration
	sleep      func(time.Duration)
	next       atomic.Int64 // index of the write that is not handed out yet
	origin     time.Time    // write 0 is due then
}

// grace is how long after the window's end overdue writes may still start.
const grace = time.Second

func newPacer(l *load, start time.Time) *pacer {
	return &pacer{
		due:   make(chan time.Time),
		start: start, end: start.Add(l.duration), origin: start.Add(-l.warmUp),
		interval: time.Duration(float64(time.Second) / l.rate),
		sleep:    l.sleep,
	}
}

func (p *pacer) dueAt(i int64) time.Time { return p.origin.Add(time.Duration(i) * p.interval) }

// run hands out due times until the window and its grace are over.
func (p *pacer) run(ctx context.Context) {
	defer close(p.due)
	defer precise()()
	giveUp := time.NewTimer(time.Until(p.end.Add(grace)))
	defer giveUp.Stop()
	for i := int64(0); ; i++ {
		p.next.Store(i)
		due := p.dueAt(i)
		if !due.Before(p.end) {
			return
		}
		if wait := time.Until(due); wait > 0 {
			p.sleep(wait)
		}
		select {
		case p.due <- due:
		case <-giveUp.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// unstarted records the writes that were due within the window but never
// started, with the lateness that they had when the pacer gave up.
func (p *pacer) unstarted(h *hdrhistogram.Histogram) (n int64) {
	gaveUp := p.end.Add(grace)
	for i := p.next.Load(); p.dueAt(i).Before(p.end); i++ {
		if due := p.dueAt(i); !due.Before(p.start) {
			record(h, gaveUp.Sub(due))
			n++
		}
	}
	return n
}
