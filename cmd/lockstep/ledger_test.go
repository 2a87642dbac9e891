package main

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"lockstep/nbd"
)

// ledger is what one writer, alone in its part of the volume, was told is there.
type ledger struct {
	first int64 // sector
	mu    sync.Mutex
	acked [sectors]uint64
	asked [sectors]uint64
	stall time.Duration // the longest write
}

const sectors = 64 // of a ledger

// write fills sectors round and round until done is closed, or the client fails.
func (l *ledger) write(c *nbd.Client, done <-chan struct{}) (last error) {
	buf := make([]byte, 512)
	for n := uint64(1); ; n++ {
		select {
		case <-done:
			return nil
		default:
		}
		i := n % sectors
		l.mu.Lock()
		l.asked[i] = n
		l.mu.Unlock()
		for at := 0; at < len(buf); at += 8 {
			binary.BigEndian.PutUint64(buf[at:], n)
		}
		began := time.Now()
		if _, err := c.WriteAt(buf, (l.first+int64(i))*512); err != nil {
			return err
		}
		l.mu.Lock()
		l.acked[i] = n
		l.stall = max(l.stall, time.Since(began))
		l.mu.Unlock()
	}
}

// check reads through c: what was acknowledged is there, or what was asked for later.
func (l *ledger) check(t *testing.T, c *nbd.Client) {
	t.Helper()
	buf := make([]byte, sectors*512)
	if _, err := c.ReadAt(buf, l.first*512); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(sectors) {
		sector := buf[i*512 : (i+1)*512]
		got := binary.BigEndian.Uint64(sector)
		if got < l.acked[i] || got > l.asked[i] || !bytes.Equal(sector, bytes.Repeat(sector[:8], 64)) {
			t.Errorf("sector %d holds %d, acknowledged was %d, asked for %d", l.first+int64(i), got, l.acked[i], l.asked[i])
		}
	}
}

// writers are one writer at each node with data.
type writers struct {
	done    chan struct{}
	running sync.WaitGroup
	at      map[string]*ledger
	errs    map[string]error
	mu      sync.Mutex
}

func (p *processes) writers() *writers {
	w := &writers{done: make(chan struct{}), at: map[string]*ledger{"a": {first: 0}, "b": {first: 1000}}, errs: map[string]error{}}
	for name, ledger := range w.at {
		c := p.dial(name, "vol")
		w.running.Go(func() {
			err := ledger.write(c, w.done)
			w.mu.Lock()
			w.errs[name] = err
			w.mu.Unlock()
		})
	}
	w.full(p, "a", "b")
	return w
}

// full waits until writers have begun another round.
func (w *writers) full(p *processes, names ...string) {
	p.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, name := range names {
		l := w.at[name]
		l.mu.Lock()
		from := l.asked
		l.mu.Unlock()
		for end := time.Now().Add(20 * time.Second); ; <-tick.C {
			l.mu.Lock()
			again := l.acked[0] > from[0] && l.acked[sectors-1] > from[sectors-1]
			l.mu.Unlock()
			if again {
				break
			}
			if time.Now().After(end) {
				p.Fatalf("the writer at %s does not go on", name)
			}
		}
	}
}

func (w *writers) stop() {
	close(w.done)
	w.running.Wait()
}
