// Package logging writes the log: one JSON object per line with the keys that
// Kata's tools know, to standard output or to whoever connects to the log port.
// Code logs with slog and a context; this package adds what the context knows.
//
// Logrus is used because libcontainer logs with it, into a global logger that
// would otherwise write lines of its own to the console.
package logging

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
)

// Levels beside those of slog.
const (
	LevelCritical = slog.LevelError + 4
	LevelTrace    = slog.LevelDebug - 4
)

// Options says what is logged and where to.
type Options struct {
	Level    slog.Level
	Version  string       // of the agent
	Out      io.Writer    // used without Listener; nil is standard output
	Listener net.Listener // the log port; the Sink closes it
}

// Setup makes slog, the standard log package and logrus write to the Sink that
// it returns. Lines wait in the Sink until its Run is called.
func Setup(o Options) *Sink {
	if o.Out == nil {
		o.Out = os.Stdout
	}
	s := newSink(o.Out, o.Listener)
	h := newHandler(s, o.Level, o.Version)
	slog.SetDefault(slog.New(h))
	bridgeLogrus(h, o.Level)
	return s
}

type contextKey int

const (
	requestKey contextKey = iota
	containerKey
)

// WithRequest returns a context whose lines carry the id of a request.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey, id)
}

// WithContainer returns a context whose lines carry the id of a container.
func WithContainer(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, containerKey, id)
}
