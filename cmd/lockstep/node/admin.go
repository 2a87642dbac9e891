package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = time.Minute
	maxBody       = 1 << 20 // bytes of a request
)

// openAdmin listens for the admin API.
func (n *node) openAdmin(ctx context.Context) (all []net.Listener, err error) {
	l, err := api.Listen(filepath.Join(n.conf.Dir, AdminSocket))
	if err != nil {
		return nil, err
	}
	all = append(all, l)
	if n.conf.AdminTCP == "" {
		return all, nil
	}
	if l, err = new(net.ListenConfig).Listen(ctx, "tcp", n.conf.AdminTCP); err != nil {
		all[0].Close()
		return nil, fmt.Errorf("node: listen for the admin API: %w", err)
	}
	return append(all, l), nil
}

// serveHTTP answers on l until ctx ends; what is being answered is ended then.
func (n *node) serveHTTP(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           n.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close() // a client that does not read what it is sent
		}
	})
	n.log.Info("serving", "http", l.Addr().String())
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("node: serve %s: %w", l.Addr(), err)
}

func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/control/", n.group.Handler())
	mux.HandleFunc("GET /status", n.getStatus)
	mux.HandleFunc("GET /events", n.getEvents)
	mux.HandleFunc("GET /nodes", n.getNodes)
	mux.HandleFunc("DELETE /nodes/{node}", n.deleteNode)
	mux.HandleFunc("POST /nodes/{node}/promote", n.promote)
	mux.HandleFunc("POST /nodes/{node}/demote", n.demote)
	mux.HandleFunc("GET /volumes", n.getVolumes)
	mux.HandleFunc("POST /volumes", n.postVolume)
	mux.HandleFunc("GET /volumes/{volume}", n.getVolume)
	mux.HandleFunc("DELETE /volumes/{volume}", n.deleteVolume)
	mux.HandleFunc("PUT /volumes/{volume}/size", n.putSize)
	mux.HandleFunc("PUT /volumes/{volume}/policy", n.putPolicy)
	mux.HandleFunc("POST /volumes/{volume}/replicas", n.postReplica)
	mux.HandleFunc("PUT /volumes/{volume}/replicas/{node}", n.putReplica)
	mux.HandleFunc("DELETE /volumes/{volume}/replicas/{node}", n.deleteReplica)
	mux.HandleFunc("GET /volumes/{volume}/standing", n.getStanding)
	mux.HandleFunc("POST /volumes/{volume}/handover", n.postHandover)
	mux.HandleFunc("POST /volumes/{volume}/failover", n.postFailover)
	mux.HandleFunc("POST /volumes/{volume}/verify", n.postVerify)
	mux.HandleFunc("POST /verify", func(w http.ResponseWriter, _ *http.Request) {
		api.Refuse(w, http.StatusBadRequest, "which volume? (lockstep verify VOLUME)")
	})
	mux.HandleFunc("GET /healthz", n.getHealth)
	mux.Handle("GET /metrics", n.metrics.handler())
	return mux
}

// commandTimeout bounds how long a command waits for the group to decide.
const commandTimeout = 10 * time.Second

// command has the group apply c, and waits until this node knows of it.
func (n *node) command(ctx context.Context, c control.Command) (control.Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTimeout, errors.New("the group did not decide in time: is a majority of its voters there? (see lockstep cluster list)"))
	defer cancel()
	r, err := n.group.Do(ctx, c)
	if err == nil && r.Refused != "" {
		err = &control.Refused{Reason: r.Refused}
	}
	if err == nil && !r.Won {
		err = errLost
	}
	if err == nil {
		err = n.group.Await(ctx, r.Index)
	}
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return r, err
}

var errLost = errors.New("another change of the volume came first: look at its status, and try again if it is still wanted")

// carryOut answers with what a command about a volume or a node came to.
func (n *node) carryOut(w http.ResponseWriter, r *http.Request, c control.Command) {
	n.log.Info("asked for", "what", c.Kind, "volume", c.Volume, "node", c.Node)
	result, err := n.command(r.Context(), c)
	if err != nil {
		fail(w, err)
		return
	}
	if result.Volume != nil {
		api.Answer(w, http.StatusOK, result.Volume)
		return
	}
	api.Answer(w, http.StatusOK, n.group.State().Nodes)
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	code, why := http.StatusInternalServerError, err.Error()
	refused, isRefused := errors.AsType[*control.Refused](err)
	switch {
	case isRefused:
		code, why = http.StatusConflict, refused.Reason
	case errors.Is(err, errLost):
		code = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, control.ErrUnknown):
		code = http.StatusServiceUnavailable
	}
	api.Refuse(w, code, why)
}

// read decodes a request's body; if that fails it has answered.
func read[T any](w http.ResponseWriter, r *http.Request) (into T, ok bool) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&into); err != nil {
		api.Refuse(w, http.StatusBadRequest, fmt.Sprintf("the body of %s %s: %v", r.Method, r.URL.Path, err))
		return into, false
	}
	return into, true
}

// volume finds the volume that a request is about; if there is none it has answered.
func (n *node) volume(w http.ResponseWriter, r *http.Request) (*control.Volume, bool) {
	name := r.PathValue("volume")
	v := n.group.State().Volumes[name]
	if v == nil {
		api.Refuse(w, http.StatusNotFound, fmt.Sprintf("there is no volume %q (see lockstep volume list)", name))
	}
	return v, v != nil
}
