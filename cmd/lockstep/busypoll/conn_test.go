package busypoll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a TCP connection with a Conn at one end.
func pair(t *testing.T, limit time.Duration) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	plain, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	accepted, err := Listener{Listener: ln, Limit: limit}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return accepted.(*Conn), plain
}

func TestCarriesEverything(t *testing.T) {
	for _, limit := range []time.Duration{0, 50 * time.Microsecond} {
		c, plain := pair(t, limit)
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than the socket's buffers hold
		go func() {
			io.Copy(plain, plain) // echo
			plain.Close()
		}()
		got := make(chan []byte)
		go func() {
			b := make([]byte, len(sent))
			_, err := io.ReadFull(c, b)
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		if n, err := c.Write(sent); n != len(sent) || err != nil {
			t.Fatal(n, err)
		}
		if !bytes.Equal(<-got, sent) {
			t.Errorf("limit %v: what came back is not what was sent", limit)
		}
	}
}

func TestEndAndClose(t *testing.T) {
	c, plain := pair(t, time.Microsecond)
	plain.Close()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read at the end: %v, want EOF", err)
	}
	c, _ = pair(t, time.Microsecond)
	ended := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	c.Close()
	if err := <-ended; err == nil {
		t.Error("a read outlives Close")
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v, want ErrClosed", err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want ErrClosed", err)
	}
}

func TestDeadlines(t *testing.T) {
	c, plain := pair(t, time.Microsecond)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past its deadline: %v", err)
	}
	c.SetDeadline(time.Time{})
	ended := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	c.SetReadDeadline(time.Unix(1, 0)) // wakes a reader that sleeps already
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read when a deadline in the past is set: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	plain.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("after all that: %d, %v", n, err)
	}
}

// A wake-up that meets the clearing of an earlier one must not leave the eventfd
// readable with nobody to read it: the sleeper would never sleep again.
func TestPokesDoNotPileUp(t *testing.T) {
	c, plain := pair(t, 0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 64); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}()
	for range 20000 {
		plain.Write([]byte{1})
		c.SetReadDeadline(time.Time{})
	}
	quiet := false
	for end := time.Now().Add(5 * time.Second); !quiet && time.Now().Before(end); time.Sleep(time.Millisecond) {
		p := []unix.PollFd{{Fd: int32(c.in.wake), Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		quiet = n == 0
	}
	if !quiet {
		t.Error("the eventfd stays readable")
	}
	c.Close()
	<-ended
}

func TestSpinnerGivesUpAndComesBack(t *testing.T) {
	s := spinner{limit: time.Microsecond}
	spins := 0
	for range 1000 { // a distance: nothing ever comes in time
		if s.budget() > 0 {
			spins++
			s.miss()
		}
	}
	if spins > 25 {
		t.Errorf("spun %d times of 1000 in vain", spins)
	}
	for s.budget() == 0 {
	}
	s.hit()
	for i := range 100 {
		if s.budget() == 0 {
			t.Fatalf("does not spin after %d hits", i)
		}
		s.hit()
	}
	s.load()
	if s.budget() != 0 {
		t.Error("spins under load")
	}
}
