package sweep

import (
	"context"
	"fmt"
	"io"
	"time"

	"lockstep/wanem"
)

// Device is a mirrored volume as its user sees it. ReadAt and WriteAt may be
// called concurrently; Close makes calls in progress return with an error.
type Device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
}

// Stand is what an experiment runs on: two sites, the link between them, and a
// volume that is mirrored across it. One goroutine calls it.
type Stand interface {
	// SetLink makes the path between the sites behave as the link says.
	SetLink(context.Context, wanem.Link) error
	// MeasureRTT sends n probes over the idle link.
	MeasureRTT(ctx context.Context, n int) (RTT, error)
	// Drops counts the packets that the link has dropped since SetLink.
	Drops() (uint64, error)
	// Open gives the volume with everything on the way new: processes and
	// connections. The device before must be closed.
	Open(context.Context) (Device, error)
	// URI names the open volume for fio.
	URI() string
	// Compare stops the volume and compares the replicas byte for byte. It
	// returns how many bytes each has; a difference is a *DifferenceError.
	Compare(context.Context) (bytes int64, err error)
	// Facts says what the stand is made of. They end up in the report.
	Facts() Facts
}

// RTT is the round trip time of a number of probes.
type RTT struct {
	Median, P99, Min time.Duration
}

// DifferenceError says that the replicas differ from an offset on.
type DifferenceError struct{ Offset int64 }

func (e *DifferenceError) Error() string {
	return fmt.Sprintf("they differ from offset %d on: this is a fault of the mirror: keep both files and report it", e.Offset)
}

// Facts describes a stand. Parameters belong to the experiment: a sweep is
// resumed only if they are the same.
type Facts struct {
	Backend    string            `json:"backend"`     // netem, tun, ...
	BackendWhy string            `json:"backend_why"` // why this one
	Congestion string            `json:"congestion_control"`
	Sysctls    map[string]string `json:"sysctls"`
	Version    string            `json:"version"` // of what is measured, with its commit
	Commands   []string          `json:"commands"`
	Parameters map[string]string `json:"parameters"`
}
