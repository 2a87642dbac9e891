package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what clients can make a server hold. A zero field is its default.
type Limits struct {
	Conns     int           // connections of the server; default 128
	Requests  int           // in flight per connection, at most 1024; default 256
	Bytes     int64         // buffer bytes in flight per connection; default 64 MiB. One request always fits
	Memory    int64         // buffer bytes in flight of all connections; default 1 GiB. One request per connection always fits
	Handshake time.Duration // for the whole handshake; default 10 s
	Drain     time.Duration // for sending the last replies to a connection that ends; default 5 s
}

// maxRequests is IOV_MAX: all replies of a connection fit one system call.
const maxRequests = 1024

func (l *Limits) setDefaults() {
	l.Conns = orDefault(l.Conns, 128)
	l.Requests = min(orDefault(l.Requests, 256), maxRequests)
	l.Bytes = orDefault(l.Bytes, 64<<20)
	l.Memory = orDefault(l.Memory, 1<<30)
	l.Handshake = orDefault(l.Handshake, 10*time.Second)
	l.Drain = orDefault(l.Drain, 5*time.Second)
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Config configures a [Server].
type Config struct {
	// Exports are what is always served; names are unique. The first is what
	// clients get that name none.
	Exports []Export

	// Catalog has what is served beside; nil is nothing.
	Catalog Catalog

	Limits Limits

	// Logger receives connections coming and going; nil is slog.Default().
	Logger *slog.Logger
}

// Server serves exports to NBD clients. Its methods may be called concurrently.
type Server struct {
	exports []Export
	catalog Catalog
	limits  Limits
	log     *slog.Logger
	memory  atomic.Int64 // buffer bytes in flight

	ctx    context.Context // ends when Shutdown begins
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
	idle   chan struct{} // closed when closed and without connections
}

// NewServer checks the configuration and returns a server that serves nothing
// until Serve or ServeConn.
func NewServer(cfg Config) (*Server, error) {
	s := &Server{limits: cfg.Limits, catalog: cfg.Catalog, log: cfg.Logger, conns: map[*conn]struct{}{}, idle: make(chan struct{})}
	s.limits.setDefaults()
	if s.log == nil {
		s.log = slog.Default()
	}
	if len(cfg.Exports) == 0 && cfg.Catalog == nil {
		return nil, &Error{Op: "configure server", Err: errors.New("nothing to export"), Hint: "set Config.Exports or Config.Catalog"}
	}
	names := map[string]bool{}
	for _, e := range cfg.Exports {
		if err := e.setDefaults(); err != nil {
			return nil, err
		}
		if names[e.Name] {
			return nil, e.invalid("a second export of that name", "give each its own name")
		}
		names[e.Name] = true
		s.exports = append(s.exports, e)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts connections until ctx or the server ends, closes l, and returns
// when every connection that it accepted is drained. It returns nil after such an
// orderly end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := s.bind(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	var conns sync.WaitGroup
	defer conns.Wait()
	for delay := time.Duration(0); ; {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return &Error{Op: "accept", Subject: l.Addr().String(), Err: err}
		case err != nil: // out of descriptors or memory: it may pass
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("nbd: accept failed", "addr", l.Addr(), "err", err, "retry_in", delay)
			sleep(ctx, delay)
			continue
		}
		delay = 0
		conns.Go(func() {
			if err := s.ServeConn(ctx, nc); err != nil {
				s.log.Info("nbd: connection failed", "remote", nc.RemoteAddr(), "err", err)
			}
		})
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// bind returns a context that ends with ctx or with the server.
func (s *Server) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// ServeConn serves one client on a unix or TCP connection, closes it, and returns
// when everything that the client had in flight is completed. When ctx ends, the
// connection reads no more and answers what was submitted. A disconnect is no
// error, nor is a client that goes away between requests.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) error {
	defer nc.Close()
	c, err := s.newConn(nc)
	if err != nil {
		return err
	}
	if err := s.enter(c); err != nil {
		return err
	}
	defer s.leave(c)
	ctx, cancel := s.bind(ctx)
	defer cancel()
	defer c.detach()
	if err := s.handshake(ctx, c); err != nil {
		if errors.Is(err, errAborted) || errors.Is(err, errStopped) || err == io.EOF {
			return nil
		}
		return &Error{Op: "handshake", Err: err}
	}
	s.log.Debug("nbd: client attached", "export", c.export.Name, "remote", nc.RemoteAddr(), "structured", c.structured)
	defer s.log.Debug("nbd: client detached", "export", c.export.Name, "remote", nc.RemoteAddr())
	defer context.AfterFunc(ctx, c.stop)()
	defer c.heed()()
	if err := c.transmit(); err != nil {
		return &Error{Op: "serve export", Subject: fmt.Sprintf("%q", c.export.Name), Err: err}
	}
	return nil
}

// handshake negotiates, within its time limit, and attaches c to the export.
func (s *Server) handshake(ctx context.Context, c *conn) error {
	c.nc.SetDeadline(time.Now().Add(s.limits.Handshake)) //nolint:errcheck // a closed socket fails at the first read
	interrupt := context.AfterFunc(ctx, c.hangup)
	h := &handshake{rw: c.nc, list: s.list, find: s.find}
	h.attach = func(e *Export) (Backend, error) {
		b, err := c.attach(ctx, e)
		if err == nil || errors.Is(err, errUnattached) {
			c.nc.SetDeadline(time.Now().Add(s.limits.Handshake)) //nolint:errcheck // a closed socket fails at the next write
		}
		return b, err
	}
	var err error
	c.session, err = h.run()
	if !interrupt() || ctx.Err() != nil {
		return errStopped
	}
	if err != nil {
		return err
	}
	return c.nc.SetDeadline(time.Time{})
}

// enter counts a connection in, unless the server is full or shutting down.
func (s *Server) enter(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return &Error{Op: "serve", Err: errors.New("the server is shutting down")}
	}
	if len(s.conns) >= s.limits.Conns {
		return &Error{Op: "serve", Err: fmt.Errorf("all %d connections are taken", s.limits.Conns), Hint: "raise Limits.Conns"}
	}
	s.conns[c] = struct{}{}
	return nil
}

// partTime bounds how long Shutdown waits for clients' idle moments.
const partTime = 200 * time.Millisecond

// part lets each client go when it waits for nothing: it may be one that goes on
// elsewhere, and that learns only from its own timer of a request that was never read.
func (s *Server) part(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	for s.partFromIdle() && ctx.Err() == nil {
		sleep(ctx, 500*time.Microsecond)
	}
}

// partFromIdle lets those go who are idle now, and says whether any are still there.
func (s *Server) partFromIdle() (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.transmitting.Load() {
			c.partIfIdle()
			left = true
		}
	}
	return left
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	if s.closed && len(s.conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
}

// Shutdown ends Serve and ServeConn: connections are closed at a moment when their client
// waits for nothing, if there is one soon. Of the others no new requests are read, those
// submitted are completed and answered, then they are closed. When ctx ends first, it closes
// them at once and returns ctx's error; requests that the backend still has are dropped as
// it completes them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed && len(s.conns) == 0 {
		close(s.idle)
	}
	s.closed = true
	s.mu.Unlock()
	s.part(ctx)
	s.cancel()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == 0 { // ctx has ended, and so has the last connection
		return nil
	}
	for c := range s.conns {
		c.hangup()
	}
	return ctx.Err()
}
