package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"lockstep/mirror/store"
	"lockstep/mirror/store/powercut"
	"lockstep/mirror/store/vfs"
)

// region makes even a small store have many: what is promised in one says nothing of others.
const region = 64 << 10

type writing struct {
	plan
	path, device, logged string
	unsynced             bool
	reopen               uint64
	marks                int
}

func write(ctx context.Context, args []string, out io.Writer) error {
	var w writing
	f := w.flags("write", out)
	f.StringVar(&w.path, "store", "", "write to a store with its data in this file")
	f.StringVar(&w.device, "device", "", "write to this block device instead")
	f.StringVar(&w.logged, "dm", "", "the device-mapper devices that get the marks, with commas between")
	f.BoolVar(&w.unsynced, "unsynced", false, "the store's syncs do nothing: check must find losses then")
	f.Uint64Var(&w.reopen, "reopen", 100, "after so many operations the store is stopped cleanly and opened again")
	if err := parse(f, args); err != nil {
		return err
	}
	if (w.path == "") == (w.device == "") || w.unsynced && w.path == "" || w.reopen == 0 {
		return fmt.Errorf("one of -store and -device is wanted, -unsynced is for -store, -reopen is positive: %w", errMisuse)
	}
	var err error
	if w.device != "" {
		err = w.toDevice(ctx)
	} else {
		err = w.toStore(ctx)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(map[string]any{"ops": w.ops, "marks": w.marks, "unsynced": w.unsynced})
}

func (w *writing) writer(ctx context.Context, to powercut.Target) *powercut.Writer {
	p := powercut.Plan{Seed: w.seed, Sectors: w.size / powercut.SectorSize}
	return &powercut.Writer{Plan: p, To: to, Mark: func(text string) error { return w.mark(ctx, text) }, SyncEvery: 8}
}

func (w *writing) toDevice(ctx context.Context) error {
	d, err := openDevice(w.device, w.size)
	if err != nil {
		return err
	}
	defer d.close()
	return w.writer(ctx, d).Run(1, w.ops)
}

// toStore writes as one process after another would.
func (w *writing) toStore(ctx context.Context) error {
	o := store.Options{Path: w.path, Size: w.size, Region: region}
	if w.unsynced {
		o.FS = powercut.Unsynced(vfs.OS)
	}
	for first := uint64(1); first <= w.ops; first += w.reopen {
		s, err := store.Open(o)
		if err != nil {
			return err
		}
		if err := w.writer(ctx, powercut.ToStore(s)).Run(first, min(first+w.reopen-1, w.ops)); err != nil {
			s.Close()
			return err
		}
		if err := s.CloseClean(); err != nil {
			return err
		}
	}
	return nil
}

// mark puts the text into every log, after everything that was flushed there.
func (w *writing) mark(ctx context.Context, text string) error {
	w.marks++
	if w.logged == "" {
		return ctx.Err()
	}
	for _, name := range strings.Split(w.logged, ",") {
		said, err := exec.CommandContext(ctx, "dmsetup", "message", name, "0", "mark", text).CombinedOutput()
		if err != nil {
			return fmt.Errorf("mark %q in the log of %s: %w: %s; is it a log-writes device?", text, name, err, bytes.TrimSpace(said))
		}
	}
	return nil
}
