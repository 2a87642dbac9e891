package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"lockstep/mirror"
)

const (
	progressEvery = 100 * time.Millisecond // lines for people: more would only cost
	lineTimeout   = 30 * time.Second       // a client that takes no line for so long is gone
)

// VerifyLine is one line of the answer to a verification.
type VerifyLine struct {
	Progress *mirror.VerifyProgress `json:"progress,omitempty"`
	Result   *mirror.VerifyResult   `json:"result,omitempty"` // in the last line
	Error    string                 `json:"error,omitempty"`  // in the last line: why Result is not all
}

// Lines sends JSON lines to a client as they come. One that can't be sent ends the
// request's work through gone.
type Lines struct {
	mu   sync.Mutex
	to   *http.ResponseController
	out  *json.Encoder
	sent map[string]time.Time // last progress of a replica
	gone context.CancelFunc
}

// NewLines begins an answer of 200.
func NewLines(w http.ResponseWriter, gone context.CancelFunc) *Lines {
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Connection", "close") // the deadline of its last line would be that of the next answer
	return &Lines{to: http.NewResponseController(w), out: json.NewEncoder(w), sent: map[string]time.Time{}, gone: gone}
}

// Progress sends how far a replica is, now and then.
func (l *Lines) Progress(p mirror.VerifyProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Done < p.Total && time.Since(l.sent[p.Replica]) < progressEvery {
		return
	}
	l.sent[p.Replica] = time.Now()
	l.sendLocked(VerifyLine{Progress: &p})
}

// Send sends a line.
func (l *Lines) Send(line VerifyLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendLocked(line)
}

func (l *Lines) sendLocked(line VerifyLine) {
	err := l.to.SetWriteDeadline(time.Now().Add(lineTimeout))
	if err == nil {
		err = l.out.Encode(line)
	}
	if err == nil {
		err = l.to.Flush()
	}
	if err != nil {
		l.gone()
	}
}
