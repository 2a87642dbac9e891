package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"lockstep/mirror/store"
	"lockstep/mirror/store/powercut"
)

type checking struct {
	plan
	logFile, store string
	diskSize       int64
	intents        bool
	cuts           int
	dir            string // of the disk's copy, and where that is mounted

	model *powercut.Model
	disk  *powercut.Disk
	out   verdict
}

// verdict is what the check ends with.
type verdict struct {
	Entries uint64   `json:"entries"`  // in the log
	Places  int      `json:"places"`   // flushes, FUA writes and marks, after the first promise
	Cuts    int      `json:"cuts"`     // of those, where the power was cut
	Synced  uint64   `json:"synced"`   // operations that were promised at the end
	BadCuts int      `json:"bad_cuts"` // after which something was missing
	First   []string `json:"first,omitempty"`
}

func check(ctx context.Context, args []string, out io.Writer) error {
	var c checking
	f := c.flags("check", out)
	f.StringVar(&c.logFile, "log", "", "the log, a file or device")
	f.StringVar(&c.store, "store", "", "the store's data on the file system, with * for what differs")
	f.Int64Var(&c.diskSize, "disk-size", 64<<20, "size of the disk that was logged, in bytes")
	f.BoolVar(&c.intents, "intents", false, "what is newer than promised must have an intent: for a store that was written directly")
	f.IntVar(&c.cuts, "cuts", 0, "cut at most so many times, evenly; 0 is at every place")
	if err := parse(f, args); err != nil {
		return err
	}
	if c.logFile == "" || c.store == "" || c.cuts < 0 {
		return fmt.Errorf("-log and -store are wanted, -cuts is not negative: %w", errMisuse)
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(c.out); err != nil {
		return err
	}
	switch {
	case c.out.BadCuts > 0:
		return fmt.Errorf("what was promised is missing after %d of %d power cuts", c.out.BadCuts, c.out.Cuts)
	case c.out.Synced != c.ops:
		return fmt.Errorf("the log ends with %d of %d operations promised: was it removed before it was whole?", c.out.Synced, c.ops)
	}
	return nil
}

// run goes through the log twice: the places are counted before some are chosen.
func (c *checking) run(ctx context.Context) error {
	f, err := os.Open(c.logFile)
	if err != nil {
		return err
	}
	defer f.Close()
	c.dir, err = os.MkdirTemp("", "powercut")
	if err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	if err := os.Mkdir(filepath.Join(c.dir, "mnt"), 0o700); err != nil {
		return err
	}
	if err := c.replay(f, func() error { c.out.Places++; return nil }); err != nil {
		return err
	}
	place, every := 0, 1.0
	if c.cuts > 0 {
		every = max(1, float64(c.out.Places)/float64(c.cuts))
	}
	return c.replay(f, func() error {
		place++
		if float64(place) < every*float64(c.out.Cuts) && place != c.out.Places {
			return ctx.Err()
		}
		c.out.Cuts++
		return c.cut(ctx)
	})
}

// replay applies the log and calls at wherever the power could fail, from the
// first promise on.
func (c *checking) replay(f *os.File, at func() error) error {
	l, err := powercut.OpenLog(f)
	if err != nil {
		return err
	}
	c.out.Entries = l.Entries()
	c.model = powercut.NewModel(powercut.Plan{Seed: c.seed, Sectors: c.size / powercut.SectorSize}, c.ops)
	c.disk = powercut.NewDisk(c.diskSize)
	for {
		e, err := l.Next()
		if errors.Is(err, io.EOF) {
			c.out.Synced = c.model.Synced()
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.Apply(e, c.disk); err != nil {
			return err
		}
		c.model.Mark(e.Mark)
		if e.Flags&(powercut.Flush|powercut.FUA|powercut.Mark) == 0 || c.model.Synced() == 0 {
			continue
		}
		if err := at(); err != nil {
			return err
		}
	}
}

// cut looks at what the disk holds now.
func (c *checking) cut(ctx context.Context) error {
	image, mnt := filepath.Join(c.dir, "disk"), filepath.Join(c.dir, "mnt")
	if err := c.disk.Save(image); err != nil {
		return err
	}
	if said, err := exec.CommandContext(ctx, "mount", "-o", "loop", image, mnt).CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.missing(fmt.Sprintf("the file system cannot be mounted: %v: %s", err, bytes.TrimSpace(said)))
		return nil
	}
	c.look(mnt)
	// Not with the context: an interrupt must not leave it mounted.
	if said, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
		return fmt.Errorf("umount %s: %w: %s", mnt, err, bytes.TrimSpace(said))
	}
	return nil
}

func (c *checking) look(mnt string) {
	found, err := filepath.Glob(filepath.Join(mnt, c.store))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("there are %d stores %s", len(found), c.store)
	}
	var losses []powercut.Loss
	if err == nil {
		losses, err = powercut.CheckStore(store.Options{Path: found[0], Size: c.size}, c.model, c.intents)
	}
	switch {
	case err != nil:
		c.missing(err.Error())
	case len(losses) > 0:
		c.missing(fmt.Sprint(losses))
	}
}

// missing notes that this cut lost something; of the first few, what.
func (c *checking) missing(why string) {
	c.out.BadCuts++
	if len(c.out.First) < 3 {
		c.out.First = append(c.out.First, fmt.Sprintf("after operation %d was promised: %s", c.model.Synced(), why))
	}
}
