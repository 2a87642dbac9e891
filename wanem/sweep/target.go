package sweep

import (
	"context"

	"lockstep/wanem"
)

// Wire is the link between the two sites as one target's traffic crosses it. One
// goroutine calls it.
type Wire interface {
	// SetLink makes the path between the sites behave as the link says.
	SetLink(context.Context, wanem.Link) error
	// MeasureRTT sends n probes over the idle link.
	MeasureRTT(ctx context.Context, n int) (RTT, error)
	// Drops counts the packets that the link has dropped since SetLink.
	Drops() (uint64, error)
}

// Target is one kind of mirrored volume (lockstep, DRBD, ...) that a sweep measures.
// One goroutine calls it; trials of several targets alternate, each between its own
// Open and Compare.
type Target interface {
	// Name is what --target calls it: a part of file names.
	Name() string
	// Wire is the link that its replication crosses; nil for one that crosses none.
	Wire() Wire
	// Open gives the volume in sync, with everything on the way new: processes and
	// connections. The device before must be closed.
	Open(context.Context) (Device, error)
	// Source names the open volume for programs as fio.
	Source() Source
	// Compare stops the volume and compares the copies byte for byte. It returns how
	// many bytes each has; a difference is a *DifferenceError, and a *DegradedError,
	// with the bytes, is one that lost a copy meanwhile. With one copy it only stops.
	Compare(context.Context) (bytes int64, err error)
	// Facts says what it is made of, for the report.
	Facts() TargetFacts
}

// Source says how another program reaches a volume: one of the two is empty.
type Source struct {
	URI  string // NBD
	Path string // a block device
}

// TargetFacts describes a target. They end up in the report.
type TargetFacts struct {
	Version    string            `json:"version"`    // of what is measured
	Settings   []Setting         `json:"settings"`   // that make the comparison fair
	Commands   []string          `json:"commands"`   // to do it by hand
	Parameters map[string]string `json:"parameters"` // a sweep is resumed only with the same
	OneCopy    bool              `json:"one_copy"`   // not mirrored: there is nothing to compare and no round trip
}

// Setting is one that was chosen, and why.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Why   string `json:"why"`
}
