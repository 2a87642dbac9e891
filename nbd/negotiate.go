package nbd

import (
	"context"
	"errors"
	"net"
)

// Endpoint is where a server listens, and what of it is meant.
type Endpoint struct {
	Network, Address string // as net.Dial wants them: "tcp" or "unix"
	Export           string // empty: the default one
}

// ParseURI understands nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, and
// [Listen]'s unix:PATH and tcp:HOST:PORT, which mean the default export.
func ParseURI(uri string) (Endpoint, error) {
	network, address, export, err := parseURI(uri)
	return Endpoint{Network: network, Address: address, Export: export}, err
}

// Negotiate does the client's side of the handshake on nc, for someone else to go on
// with the connection: no byte of the transmission phase is read or written. It asks
// for nothing but simple replies, which is all that Linux's nbd.ko understands. ctx
// bounds it. On error nc is of no use any more; closing it is the caller's.
func Negotiate(ctx context.Context, nc net.Conn, export string) (Info, error) {
	interrupt := context.AfterFunc(ctx, func() { nc.Close() })
	n := newNegotiation(nc, export)
	err := n.hello()
	if err == nil {
		err = n.begin()
	}
	if err == nil && n.r.Buffered() > 0 {
		err = errors.New("the server went on before it was asked anything")
	}
	if !interrupt() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Info{}, &Error{Op: "negotiate with", Subject: peerName(nc), Err: err}
	}
	return n.info, nil
}

// peerName is the other side's address.
func peerName(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil && a.String() != "" {
		return a.Network() + ":" + a.String()
	}
	return "the server"
}
