package mirror

import (
	"time"
)

// Status is how a volume stands.
type Status struct {
	Volume    string          `json:"volume"`
	Size      int64           `json:"size_bytes"`
	Epoch     uint64          `json:"epoch"`
	Serving   bool            `json:"serving"`          // the promotion is over
	Ready     bool            `json:"ready"`            // writes are taken
	Failed    string          `json:"failed,omitempty"` // why writes are refused for good
	Policy    string          `json:"on_replica_loss"`  // suspend or continue
	Contract  string          `json:"ack"`              // written or durable
	InFlight  int             `json:"in_flight"`        // writes above the watermark
	Watermark uint64          `json:"watermark"`
	Suspended float64         `json:"suspended_s"` // in total, while writes could not complete; a promotion counts
	Replicas  []ReplicaStatus `json:"replicas"`
}

// ReplicaStatus is how one replica of a volume stands.
type ReplicaStatus struct {
	Member   int     `json:"member"` // its number
	Addr     string  `json:"addr"`
	Standing string  `json:"standing"` // as in MemberStatus
	InSync   bool    `json:"in_sync"`  // the configuration says so
	Left     int64   `json:"left_bytes"`
	Missed   int64   `json:"missed_bytes"`   // of Left: to be copied
	Maybe    int64   `json:"maybe_bytes"`    // of Left: to be compared
	Copied   int64   `json:"copied_bytes"`   // since the volume was opened
	Compared int64   `json:"compared_bytes"` // likewise
	Rate     int64   `json:"rate_bytes_per_s"`
	ETA      float64 `json:"eta_s"`  // until nothing is left; -1: not known
	RTT      float64 `json:"rtt_us"` // of the last heartbeat; 0: none yet
	Err      string  `json:"error,omitempty"`
}

// VerifyProgress says how far a verification of one replica is.
type VerifyProgress struct {
	Replica   string `json:"replica"`
	Done      int64  `json:"done_bytes"`
	Total     int64  `json:"total_bytes"`
	Differing int64  `json:"differing_bytes"`
}

// VerifyResult is what a verification found.
type VerifyResult struct {
	Checked int64        `json:"checked_bytes"` // of all replicas
	Differs []Difference `json:"differs"`
	Took    float64      `json:"took_s"`
}

// Difference is a range in which a replica differs from the primary.
type Difference struct {
	Replica  string `json:"replica"`
	Off      int64  `json:"offset"`
	Len      int64  `json:"length"`
	Repaired bool   `json:"repaired"`
}

// Status returns how the volume stands. It may be called at any time.
func (v *Volume) Status() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := v.machine
	s := Status{
		Volume: v.conf.Volume, Size: v.conf.Store.Size(), Epoch: m.Configuration().Epoch,
		Serving: m.Serving(), Ready: m.Ready(), Policy: "suspend", Contract: "written",
		InFlight: m.InFlight(), Watermark: m.Watermark(), Suspended: v.waited.Seconds(), Replicas: []ReplicaStatus{},
	}
	if err := m.Failed(); err != nil {
		s.Failed = err.Error()
	}
	if v.conf.Continue {
		s.Policy = "continue"
	}
	if v.conf.Durable {
		s.Contract = "durable"
	}
	for _, l := range v.others {
		s.Replicas = append(s.Replicas, l.status())
	}
	return s
}

// status is one replica's; the volume's lock is held.
func (l *link) status() ReplicaStatus {
	m := l.v.machine.Member(l.id)
	s := ReplicaStatus{
		Member: int(l.id), Addr: l.addr, Standing: m.Standing, InSync: l.v.machine.Configuration().InSync.Has(l.id),
		Left: m.Missed + m.Maybe, Missed: m.Missed, Maybe: m.Maybe,
		Copied: l.copied.Load(), Compared: l.compared.Load(),
		RTT: float64(l.rtt.Load()) / float64(time.Microsecond),
	}
	if err := l.lastError(); err != nil {
		s.Err = err.Error()
	}
	switch {
	case s.Left == 0:
	case s.Err != "" || l.v.pace.rate() <= 0:
		s.ETA = -1
	default:
		s.Rate = l.v.pace.rate()
		s.ETA = float64(s.Left) / float64(s.Rate)
	}
	return s
}
