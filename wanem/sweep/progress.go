package sweep

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress tells how far a sweep is: a bar on a terminal, else a line a trial.
type progress struct {
	out         io.Writer
	start       time.Time
	done, total int
	named       bool   // several targets: each line says which
	unit        string // of what a load does in a second
	bars        *mpb.Progress
	bar         *mpb.Bar     // nil: lines
	current     atomic.Value // string: the trial that runs, for the bar
}

// newProgress is for the trials that are open; all counts earlier ones too.
func newProgress(c Config, open, all int, named bool) *progress {
	out := c.Progress
	if out == nil {
		out = io.Discard
	}
	p := &progress{out: out, start: time.Now(), total: open, named: named, unit: c.perSecond()}
	if open < all {
		fmt.Fprintf(out, "%d of %d trials were measured earlier\n", all-open, all)
	}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && open > 0 {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(64))
		p.bar = p.bars.AddBar(int64(open),
			mpb.PrependDecorators(decor.CountersNoUnit("trial %d of %d "), decor.Any(p.now)),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  ETA "), decor.AverageETA(decor.ET_STYLE_GO)))
	}
	return p
}

func (p *progress) started(t *Trial) {
	words := formatKm(t.Km) + " km "
	if p.named {
		words = t.Target + " " + words
	}
	p.current.Store(words)
}

func (p *progress) now(decor.Statistics) string {
	words, _ := p.current.Load().(string)
	return words
}

func (p *progress) finished(t *Trial) {
	p.done++
	if p.bar != nil {
		p.bar.Increment()
		return
	}
	label := string(t.Fidelity)
	if t.Why != "" {
		label += " (" + t.Why + ")"
	}
	left := time.Since(p.start) / time.Duration(p.done) * time.Duration(p.total-p.done)
	target := ""
	if p.named {
		target = fmt.Sprintf("%-12s ", t.Target)
	}
	fmt.Fprintf(p.out, "%2d/%d  %s%5s km  RTT %6.0f us (wanted %6.0f)  p50 %6.0f us  p99 %6v us  %7.0f %s  link %s  ETA %v\n",
		p.done, p.total, target, formatKm(t.Km), t.rttUS(), t.RTTWantUS, t.P50US, t.P99US, t.IOPS, p.unit, label, left.Round(time.Second))
}

// stop leaves the bar as it is and waits for its goroutine.
func (p *progress) stop() {
	if p.bar == nil {
		return
	}
	p.bar.Abort(false) // no effect on a bar that is complete
	p.bars.Wait()
}
