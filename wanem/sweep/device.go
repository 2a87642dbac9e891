package sweep

import (
	"fmt"
	"io"
	"time"
)

// Device is a volume as its user sees it. ReadAt and WriteAt may be called
// concurrently. Close may be called while they run, and more than once; calls
// that begin after it fail.
type Device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
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

// DegradedError says that a volume lost a copy for a while as it was used: nothing is
// wrong with it, its copies are identical again, but what was measured is not the
// latency of a mirror.
type DegradedError struct{ Why string }

func (e *DegradedError) Error() string { return "it was not mirrored all the time: " + e.Why }

// Facts describes what all targets of a sweep share: the machine's link and its
// settings. They end up in the report.
type Facts struct {
	Backend    string            `json:"backend"`     // netem, tun, ...
	BackendWhy string            `json:"backend_why"` // why this one
	Congestion string            `json:"congestion_control"`
	Sysctls    map[string]string `json:"sysctls"`
	Parameters map[string]string `json:"parameters"` // a sweep is resumed only with the same
}
