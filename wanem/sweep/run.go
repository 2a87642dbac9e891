package sweep

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Run does the whole experiment on each of the targets and writes report.html,
// latency.svg, points.csv and report.json to Config.Out. If ctx ends, it stops
// within about a second and what was measured can be resumed. A volume that does
// not hold what was written, or copies that differ, end it at once with a
// *MismatchError or a *DifferenceError.
func Run(ctx context.Context, c Config, facts Facts, targets []Target) (*Report, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := validTargets(targets); err != nil {
		return nil, err
	}
	parameters, err := c.parameters(facts, targets)
	if err != nil {
		return nil, err
	}
	dir := directory(c.Out)
	if err := dir.prepare(parameters, c.Resume); err != nil {
		return nil, err
	}
	trials, err := runTrials(ctx, c, targets, dir)
	if err != nil {
		return nil, resumable(ctx, c, err)
	}
	report := newReport(c, facts, parameters, targets, trials)
	if err := report.Write(c.Out); err != nil {
		return nil, err
	}
	return report, nil
}

// validTargets refuses what would mix up files and tables.
func validTargets(targets []Target) error {
	if len(targets) == 0 {
		return errors.New("sweep target: name at least one")
	}
	seen := map[string]bool{}
	for _, t := range targets {
		if seen[t.Name()] {
			return fmt.Errorf("sweep target: %s is named twice", t.Name())
		}
		seen[t.Name()] = true
	}
	return nil
}

func resumable(ctx context.Context, c Config, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return fmt.Errorf("stopped; go on with the same flags and --resume --out %s: %w", c.Out, err)
	}
	return err
}

// plan returns the trials of all targets in the one random order in which they are
// run, so that whatever drifts on the machine spreads over targets and distances.
func plan(c Config, targets []Target) []*Trial {
	var trials []*Trial
	random := rand.New(rand.NewPCG(c.Seed, 1))
	for _, target := range targets {
		for _, km := range distances(c.Km) {
			for repeat := range c.Repeats {
				trials = append(trials, &Trial{Target: target.Name(), Km: km, Repeat: repeat, Seed: random.Uint64(), target: target})
			}
		}
	}
	random.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
	return trials
}

func runTrials(ctx context.Context, c Config, targets []Target, dir directory) (trials []*Trial, err error) {
	trials = plan(c, targets)
	var open []*Trial
	for i, t := range trials {
		done, err := dir.load(t)
		if err != nil {
			return nil, err
		}
		if done != nil {
			trials[i] = done
		} else {
			open = append(open, t)
		}
	}
	progress := newProgress(c, len(open), len(trials), len(targets) > 1)
	defer progress.stop()
	load := newWorkload(c)
	defer func() { err = errors.Join(err, load.close()) }()
	bare := map[string]time.Duration{}
	for _, t := range open {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		progress.started(t)
		if err := t.runOn(ctx, c, load, bare); err != nil {
			return nil, fmt.Errorf("%s at %s km, repeat %d: %w", t.Target, formatKm(t.Km), t.Repeat+1, err)
		}
		if err := dir.save(t); err != nil {
			return nil, err
		}
		progress.finished(t)
	}
	return trials, nil
}

// runOn measures the target's bare link before the first of its trials.
func (t *Trial) runOn(ctx context.Context, c Config, load workload, bare map[string]time.Duration) error {
	if _, measured := bare[t.Target]; !measured {
		rtt, err := bareRTT(ctx, t.target.Wire())
		if err != nil {
			return err
		}
		bare[t.Target] = rtt
	}
	t.BareRTTUS = micros(bare[t.Target])
	return t.run(ctx, c, load)
}
