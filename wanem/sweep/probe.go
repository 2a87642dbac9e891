package sweep

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// warmProbes is the number of warm writes that a cold one is compared with.
const warmProbes = 9

// Probe is what single writes of one size cost over one connection: the first,
// the median of some right after it, and one after a rest.
type Probe struct {
	Bytes     int     `json:"bytes"`
	ColdUS    float64 `json:"cold_us"`
	WarmUS    float64 `json:"warm_us"`
	IdleUS    float64 `json:"after_idle_us"`
	IdleForUS float64 `json:"idle_for_us"`
}

// runProbe measures on a device that has carried nothing yet.
func runProbe(ctx context.Context, dev Device, seed uint64, size int, idle time.Duration) (Probe, error) {
	if dev.Size() < 2*int64(size) {
		return Probe{}, fmt.Errorf("probe with writes of %d bytes: the volume has only %d: use a larger --size or --idle 0", size, dev.Size())
	}
	ledger, err := newLedger(seed, dev.Size(), size, 1)
	if err != nil {
		return Probe{}, err
	}
	defer context.AfterFunc(ctx, func() { dev.Close() })()
	w := (&load{dev: dev, ledger: ledger}).newWriter(0)
	once := func() (time.Duration, error) {
		block, offset := w.prepare()
		began := time.Now()
		err := w.write(block, offset)
		return time.Since(began), err
	}
	var took []time.Duration
	for range 1 + warmProbes {
		d, err := once()
		if err != nil {
			return Probe{}, fmt.Errorf("probe: %w", err)
		}
		took = append(took, d)
	}
	cold, warm := took[0], took[1:]
	if err := pause(ctx, idle); err != nil {
		return Probe{}, err
	}
	afterIdle, err := once()
	if err != nil {
		return Probe{}, fmt.Errorf("probe after %v of rest: %w", idle, err)
	}
	if _, err := ledger.check(ctx, dev); err != nil {
		return Probe{}, err
	}
	slices.Sort(warm)
	return Probe{
		Bytes: size, ColdUS: micros(cold), WarmUS: micros(warm[len(warm)/2]),
		IdleUS: micros(afterIdle), IdleForUS: micros(idle),
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
