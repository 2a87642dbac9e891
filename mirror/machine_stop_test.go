package mirror

import (
	"errors"
	"testing"
	"time"
)

// TestWhatComesAfterTheEndIsForTheNextPrimary: whatever ended a volume of a group, its
// clients are not told an error that another primary would not tell them.
func TestWhatComesAfterTheEndIsForTheNextPrimary(t *testing.T) {
	for name, tc := range map[string]struct {
		lease time.Duration
		cause error
		want  error
	}{
		"its disk hangs":           {time.Second, ErrStalled, ErrDeposed},
		"the group refuses it":     {time.Second, ErrRefused, ErrDeposed},
		"there is a better copy":   {time.Second, ErrBetterCopy, ErrDeposed},
		"it was closed":            {time.Second, ErrClosed, ErrClosed},
		"a pair: nobody goes on":   {0, ErrBetterCopy, ErrBetterCopy},
		"its place was taken over": {time.Second, ErrDeposed, ErrDeposed},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(MachineConfig{Members: SetOf(0, 1), Lease: tc.lease, Size: 1 << 20, Block: 4 << 10, Region: 64 << 10})
			m.Step(Event{Kind: EvStop, Err: tc.cause})
			op := &Op{Kind: Write, Len: 512, Data: make([]byte, 512)}
			m.Step(Event{Kind: EvSubmit, Op: op})
			if !errors.Is(op.Err, tc.want) || !errors.Is(op.Err, tc.cause) || tc.lease == 0 && errors.Is(op.Err, ErrDeposed) {
				t.Errorf("it came to %v, want %v for %v", op.Err, tc.want, tc.cause)
			}
		})
	}
}
