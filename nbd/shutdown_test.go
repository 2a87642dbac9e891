package nbd

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"
)

// TestShutdownBetweenRequests: a client that sends one request after the other loses its
// connection between two: one that was sent is answered, or could not be sent, so that
// nothing has to wait until the client's own timer tells it that no reply will come.
func TestShutdownBetweenRequests(t *testing.T) {
	const rounds, few = 50, 5
	lost := few + 1
	// A machine that stalls for 200 ms has no such moment, and may do so for some rounds.
	for n := 0; n < 4 && lost > few; n++ {
		lost = unanswered(t, rounds)
	}
	if lost > few {
		t.Errorf("%d of %d last requests were sent and not answered", lost, rounds)
	}
}

// unanswered is in how many of so many rounds a client's last request was lost.
func unanswered(t *testing.T, rounds int) (lost int) {
	t.Helper()
	for range rounds {
		s, path := start(t, Config{Exports: []Export{disk(1 << 20)}})
		nc, _, err := enter(t, path, "disk")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			b := make([]byte, simpleReplySize)
			for {
				if _, err := nc.Write(appendHeader(nil, header{cmd: CmdFlush})); err != nil {
					ended <- err
					return
				}
				if _, err := io.ReadFull(nc, b); err != nil {
					ended <- errors.Join(errUnanswered, err)
					return
				}
			}
		}()
		time.Sleep(5 * time.Millisecond)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch err := <-ended; {
		case errors.Is(err, errUnanswered):
			lost++
		case !errors.Is(err, syscall.EPIPE):
			t.Fatal(err)
		}
	}
	return lost
}

var errUnanswered = errors.New("a request was not answered")
