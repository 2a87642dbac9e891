package sweep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// What is in a sweep's directory beside the reports:
//
//	sweep.json                      the parameters, which a resumed sweep must share
//	trials/lockstep-km-100-r2.json  one trial each
const (
	parameterFile = "sweep.json"
	trialDir      = "trials"
)

// ParameterError is mended by other parameters.
type ParameterError struct{ Err error }

func (e *ParameterError) Error() string { return e.Err.Error() }
func (e *ParameterError) Unwrap() error { return e.Err }

// directory is where a sweep keeps its state.
type directory string

// prepare makes the directory or checks that the sweep in it may be resumed.
func (d directory) prepare(parameters map[string]string, resume bool) error {
	path := filepath.Join(string(d), parameterFile)
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Join(string(d), trialDir), 0o755); err != nil {
			return fmt.Errorf("make the directory of the sweep: %w: choose another with --out", err)
		}
		return writeJSON(path, parameters)
	}
	if err != nil {
		return fmt.Errorf("read the parameters of the sweep: %w", err)
	}
	if !resume {
		return &ParameterError{fmt.Errorf("%s holds a sweep already: go on with it by --resume, or choose another --out", d)}
	}
	var before map[string]string
	if err := json.Unmarshal(old, &before); err != nil {
		return fmt.Errorf("read %s: %w: choose another --out", path, err)
	}
	if differ := differences(before, parameters); differ != "" {
		return &ParameterError{fmt.Errorf("resume %s: its sweep had other parameters: %s: give the same, or choose another --out", d, differ)}
	}
	return nil
}

// differences lists what two sets of parameters do not share: "qd was 1, now 32".
func differences(before, now map[string]string) string {
	all := maps.Clone(before)
	maps.Copy(all, now)
	var list []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if before[key] != now[key] {
			list = append(list, fmt.Sprintf("%s was %q, now %q", key, before[key], now[key]))
		}
	}
	return strings.Join(list, "; ")
}

func (d directory) trialPath(t *Trial) string {
	return filepath.Join(string(d), trialDir, fmt.Sprintf("%s-km-%s-r%d.json", t.Target, formatKm(t.Km), t.Repeat+1))
}

// load returns the outcome of a planned trial if it was finished earlier, or nil.
func (d directory) load(planned *Trial) (*Trial, error) {
	path := d.trialPath(planned)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read an earlier trial: %w", err)
	}
	t := new(Trial)
	if err = json.Unmarshal(text, t); err == nil {
		err = t.decodeLatency()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: remove the file and the trial is run again", path, err)
	}
	return t, nil
}

func (d directory) save(t *Trial) error { return writeJSON(d.trialPath(t), t) }

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(text, '\n'))
}

// writeFile writes the whole file or nothing.
func writeFile(path string, text []byte) error {
	if err := renameio.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
