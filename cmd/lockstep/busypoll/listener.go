package busypoll

import (
	"net"
	"time"
)

// Listener makes a Conn of every connection that its Listener accepts.
type Listener struct {
	net.Listener
	Limit time.Duration // for each Conn; see New
}

// Accept waits for a connection. One whose socket can't be taken over is closed
// and its error returned.
func (l Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, err := New(conn, l.Limit)
	if err != nil {
		return nil, err
	}
	return c, nil
}
