package sim

import (
	"math/rand/v2"
	"time"
)

// process is what runs at a place: a node, the witness, or a client's machine.
type process struct {
	c      *cluster
	at     place
	rand   *rand.Rand
	clock  clock
	up     bool
	paused bool
	life   int      // timers of an earlier one do nothing
	late   []func() // what is to be done when the pause is over
	idle   func()   // comes after each thing that it did
}

func (p *process) place() place { return p.at }

// now is the process's own clock.
func (p *process) now() time.Duration { return p.clock.at(p.c.now) }

// run does something that came from outside: not while the process is down, and
// after the pause while it is paused.
func (p *process) run(do func()) {
	switch {
	case !p.up:
	case p.paused:
		p.late = append(p.late, do)
	default:
		do()
		p.rested()
	}
}

func (p *process) rested() {
	if p.idle != nil {
		p.idle()
	}
}

// after does something later in the same life of the process.
func (p *process) after(d time.Duration, do func()) {
	life := p.life
	p.c.after(d, func() {
		if p.life == life {
			p.run(do)
		}
	})
}

// every does something again and again in the same life of the process.
func (p *process) every(interval time.Duration, do func()) {
	p.after(interval, func() {
		p.every(interval, do)
		do()
	})
}

// begin is the start of a life.
func (p *process) begin() {
	p.life++
	p.up = true
}

// end is its end.
func (p *process) end() {
	p.life++
	p.up, p.paused, p.late = false, false, nil
}

func (p *process) pause() { p.paused = p.up }

// resume goes on with what came while the process was paused.
func (p *process) resume() {
	if !p.paused {
		return
	}
	p.paused = false
	late := p.late
	p.late = nil
	for i, do := range late {
		if p.paused || !p.up { // it ended itself meanwhile
			if p.up {
				p.late = append(append([]func(){}, late[i:]...), p.late...)
			}
			return
		}
		do()
		p.rested()
	}
}

// between is a random time from low to high.
func (p *process) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.rand.Int64N(int64(high-low)+1))
}
