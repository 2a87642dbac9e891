package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/mirror"
)

// The admin interface of a serving process: HTTP/1.1 with JSON over a unix socket,
// which only the user that runs serve (and root) may open. curl is a client:
//
//	GET  /status              200, a mirror.Status
//	POST /verify?repair=BOOL  200, a line of JSON (verifyLine) now and then, the last
//	                          with the result. It ends when the client goes away.
//	                          409 while another one runs.
//
// An answer that is not 200 is {"error": "..."}.

// adminVolume is what the admin interface serves. Both methods may be called by
// many goroutines at once.
type adminVolume interface {
	Status() mirror.Status
	// Verify compares every replica with the primary's copy while the volume is in
	// use, until ctx ends. It calls progress, which may block, now and then.
	Verify(ctx context.Context, repair bool, progress func(mirror.VerifyProgress)) (mirror.VerifyResult, error)
}

// verifyLine is one line of the answer to POST /verify.
type verifyLine struct {
	Progress *mirror.VerifyProgress `json:"progress,omitempty"`
	Result   *mirror.VerifyResult   `json:"result,omitempty"` // in the last line
	Error    string                 `json:"error,omitempty"`  // in the last line: why Result is not all
}

const (
	progressEvery = 100 * time.Millisecond // lines for people: more would only cost
	lineTimeout   = 30 * time.Second       // a client that takes no line for so long is gone
	headerTimeout = 10 * time.Second
	idleTimeout   = time.Minute
)

// listenAdmin opens the socket at path with mode 0600. One that a killed process
// left there is replaced; one that somebody answers on is not.
func listenAdmin(path string) (net.Listener, error) {
	if err := removeDeadSocket(path); err != nil {
		return nil, fmt.Errorf("listen on admin socket %s: %w", path, err)
	}
	// The file has its mode from the moment that it exists: chmod afterwards would
	// leave a gap in which others could connect.
	private := func(_, _ string, conn syscall.RawConn) (err error) {
		if ctl := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctl != nil {
			return ctl
		}
		return err
	}
	ln, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on admin socket %s: %w%s", path, err, adminListenHint(err, path))
	}
	return ln, nil
}

func adminListenHint(err error, path string) string {
	switch {
	case len(path) >= len(unix.RawSockaddrUnix{}.Path):
		return fmt.Sprintf(" (a socket's path has at most %d bytes: give a shorter one)", len(unix.RawSockaddrUnix{}.Path)-1)
	case errors.Is(err, fs.ErrNotExist):
		return " (create its directory first)"
	case errors.Is(err, fs.ErrPermission):
		return " (choose a directory that this user may write to)"
	}
	return ""
}

// removeDeadSocket removes a socket's file if that nobody listens on it is sure.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of that name which is not a socket (choose another path, or remove it)")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return errors.New("another process serves it (choose another path, or stop that process)")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default:
		return fmt.Errorf("find out whether it is in use: %w", err)
	}
}

// startAdmin serves the admin interface of a volume at path, if there is one, until
// ctx ends or stop is called, which waits for its end. When it fails later it is
// logged: the volume goes on without.
func startAdmin(ctx context.Context, path string, volume adminVolume, log *slog.Logger) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	ln, err := listenAdmin(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := serveAdmin(ctx, ln, volume, log); err != nil {
			log.Error("admin interface ended; the volume goes on without it", "err", err)
		}
	})
	return func() { cancel(); running.Wait() }, nil
}

// serveAdmin answers on ln until ctx ends, and then closes it, which removes the
// socket; what is being answered is ended. The error is why it ended earlier.
func serveAdmin(ctx context.Context, ln net.Listener, volume adminVolume, log *slog.Logger) error {
	server := &http.Server{
		Handler:           adminHandler(volume, log),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close() // a client that does not read what it is sent
		}
	})
	log.Info("serving", "admin", ln.Addr().String())
	err := server.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve admin socket %s: %w", ln.Addr(), err)
}

func adminHandler(volume adminVolume, log *slog.Logger) http.Handler {
	a := &admin{volume: volume, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", a.status)
	mux.HandleFunc("POST /verify", a.verify)
	return mux
}

type admin struct {
	volume    adminVolume
	log       *slog.Logger
	verifying sync.Mutex // held while a verification runs: two would cost twice and find the same
}

func (a *admin) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, a.volume.Status())
}

func (a *admin) verify(w http.ResponseWriter, r *http.Request) {
	repair := false
	if v := r.URL.Query().Get("repair"); v != "" {
		var err error
		if repair, err = strconv.ParseBool(v); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("repair=%s: use true or false", v))
			return
		}
	}
	if !a.verifying.TryLock() {
		refuse(w, http.StatusConflict, "a verification is under way: wait for it, or stop it")
		return
	}
	defer a.verifying.Unlock()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := newLines(w, cancel)
	a.log.Info("verify began", "repair", repair)
	result, err := a.volume.Verify(ctx, repair, out.progress)
	line := verifyLine{Result: &result}
	switch {
	case err == nil:
	case ctx.Err() != nil: // whoever reads this has not gone away
		line.Error = "verify: lockstep serve is being stopped"
	default:
		line.Error = err.Error()
	}
	a.log.Info("verify ended", "checked", result.Checked, "differing_ranges", len(result.Differs), "repair", repair, "err", err)
	out.send(line)
}

// lines sends JSON lines to a client as they come. One that can't be sent ends the
// request's work through gone.
type lines struct {
	mu   sync.Mutex
	to   *http.ResponseController
	out  *json.Encoder
	sent map[string]time.Time // last progress of a replica
	gone context.CancelFunc
}

func newLines(w http.ResponseWriter, gone context.CancelFunc) *lines {
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Connection", "close") // the deadline of its last line would be that of the next answer
	return &lines{to: http.NewResponseController(w), out: json.NewEncoder(w), sent: map[string]time.Time{}, gone: gone}
}

func (l *lines) progress(p mirror.VerifyProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Done < p.Total && time.Since(l.sent[p.Replica]) < progressEvery {
		return
	}
	l.sent[p.Replica] = time.Now()
	l.sendLocked(verifyLine{Progress: &p})
}

func (l *lines) send(line verifyLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendLocked(line)
}

func (l *lines) sendLocked(line verifyLine) {
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

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The client may be gone, and there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, verifyLine{Error: why})
}
