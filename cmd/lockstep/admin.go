package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

// The admin interface of a serving process: HTTP/1.1 with JSON over a unix socket,
// which only the user that runs serve (and root) may open. curl is a client:
//
//	GET  /status              200, a mirror.Status
//	POST /verify?repair=BOOL  200, a line of JSON (api.VerifyLine) now and then, the last
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

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = time.Minute
)

// startAdmin serves the admin interface of a volume at path, if there is one, until
// ctx ends or stop is called, which waits for its end. When it fails later it is
// logged: the volume goes on without.
func startAdmin(ctx context.Context, path string, volume adminVolume, log *slog.Logger) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	ln, err := api.Listen(path)
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
	api.Answer(w, http.StatusOK, a.volume.Status())
}

func (a *admin) verify(w http.ResponseWriter, r *http.Request) {
	repair := false
	if v := r.URL.Query().Get("repair"); v != "" {
		var err error
		if repair, err = strconv.ParseBool(v); err != nil {
			api.Refuse(w, http.StatusBadRequest, fmt.Sprintf("repair=%s: use true or false", v))
			return
		}
	}
	if !a.verifying.TryLock() {
		api.Refuse(w, http.StatusConflict, "a verification is under way: wait for it, or stop it")
		return
	}
	defer a.verifying.Unlock()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := api.NewLines(w, cancel)
	a.log.Info("verify began", "repair", repair)
	result, err := a.volume.Verify(ctx, repair, out.Progress)
	line := api.VerifyLine{Result: &result}
	switch {
	case err == nil:
	case ctx.Err() != nil: // whoever reads this has not gone away
		line.Error = "verify: lockstep serve is being stopped"
	default:
		line.Error = err.Error()
	}
	a.log.Info("verify ended", "checked", result.Checked, "differing_ranges", len(result.Differs), "repair", repair, "err", err)
	out.Send(line)
}
