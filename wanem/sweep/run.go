package sweep

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// Run does the whole experiment and writes report.html, points.csv and
// report.json to Config.Out. If ctx ends, it stops within about a second and
// what was measured can be resumed. A volume that does not hold what was
// written, or replicas that differ, end it at once with a *MismatchError or a
// *DifferenceError.
func Run(ctx context.Context, c Config, stand Stand) (*Report, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	parameters, err := c.parameters(stand.Facts())
	if err != nil {
		return nil, err
	}
	dir := directory(c.Out)
	if err := dir.prepare(parameters, c.Resume); err != nil {
		return nil, err
	}
	trials, err := runTrials(ctx, c, stand, dir)
	if err != nil {
		return nil, resumable(ctx, c, err)
	}
	report := newReport(c, stand.Facts(), parameters, trials)
	if err := report.Write(c.Out); err != nil {
		return nil, err
	}
	return report, nil
}

func resumable(ctx context.Context, c Config, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return fmt.Errorf("stopped; go on with the same flags and --resume --out %s: %w", c.Out, err)
	}
	return err
}

// plan returns the trials in the order in which they are run.
func plan(c Config) []*Trial {
	var trials []*Trial
	random := rand.New(rand.NewPCG(c.Seed, 1))
	for _, km := range distances(c.Km) {
		for repeat := range c.Repeats {
			trials = append(trials, &Trial{Km: km, Repeat: repeat, Seed: random.Uint64()})
		}
	}
	random.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
	return trials
}

func runTrials(ctx context.Context, c Config, stand Stand, dir directory) ([]*Trial, error) {
	trials := plan(c)
	var open []*Trial
	for i, t := range trials {
		done, err := dir.load(t.Km, t.Repeat)
		if err != nil {
			return nil, err
		}
		if done != nil {
			trials[i] = done
		} else {
			open = append(open, t)
		}
	}
	progress := newProgress(c.Progress, len(open), len(trials))
	defer progress.stop()
	for _, t := range open {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := t.run(ctx, c, stand); err != nil {
			return nil, fmt.Errorf("%s km, repeat %d: %w", formatKm(t.Km), t.Repeat+1, err)
		}
		if err := dir.save(t); err != nil {
			return nil, err
		}
		progress.finished(t)
	}
	return trials, nil
}
