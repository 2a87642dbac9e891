package control

import (
	"context"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logger gives raft's messages to slog. Raft repeats itself several times a second
// while another node is away: the same message about the same is dropped for a while.
type logger struct {
	to   *slog.Logger
	name string
	args []any
	*repeats
}

const quiet = 10 * time.Second

type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newLogger(to *slog.Logger) hclog.Logger {
	return &logger{to: to, repeats: &repeats{last: map[string]time.Time{}}}
}

func (r *repeats) again(msg string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last[msg]) < quiet {
		return true
	}
	if len(r.last) > 100 {
		clear(r.last)
	}
	r.last[msg] = now
	return false
}

// levels: what is an error to raft is a link that is down to its user.
var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4, hclog.Debug: slog.LevelDebug - 4, hclog.Info: slog.LevelDebug,
	hclog.Warn: slog.LevelDebug, hclog.Error: slog.LevelWarn,
}

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	to := levels[level]
	if !l.to.Enabled(context.Background(), to) || level >= hclog.Warn && l.again(msg, time.Now()) {
		return
	}
	l.to.With(l.args...).Log(context.Background(), to, "raft: "+msg, args...)
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return false }
func (l *logger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug-4) }
func (l *logger) IsInfo() bool  { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) IsWarn() bool  { return true }
func (l *logger) IsError() bool { return true }

func (l *logger) ImpliedArgs() []any { return l.args }
func (l *logger) Name() string       { return l.name }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{l.to, l.name, append(l.args[:len(l.args):len(l.args)], args...), l.repeats}
}

func (l *logger) Named(name string) hclog.Logger {
	return &logger{l.to, l.name + name, l.args, l.repeats}
}

func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{l.to, name, l.args, l.repeats}
}

func (l *logger) SetLevel(hclog.Level)  {}
func (l *logger) GetLevel() hclog.Level { return hclog.Debug }
func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
