package forward

import (
	"io"
	"net"
	"testing"

	"lockstep/mirror"
)

// script is a connection whose other end has sent everything already.
type script struct {
	io.Reader
	net.Conn
}

func (s *script) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) Close() error                { return nil }

// checking is a volume that does nothing and is particular.
type checking struct{ t *testing.T }

func (c checking) Submit(ops []*mirror.Op) {
	for _, op := range ops {
		data := op.Kind == mirror.Read || op.Kind == mirror.Write
		if op.Off < 0 || op.Off+op.Len > testSize || data != (int64(len(op.Data)) == op.Len && op.Len > 0) {
			c.t.Errorf("the volume gets a %v at %d+%d with %d bytes", op.Kind, op.Off, op.Len, len(op.Data))
		}
	}
	Dispatch(ops)
}
