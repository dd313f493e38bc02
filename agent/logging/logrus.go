package logging

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"
)

// hookNoise begins a warning that comes with every container that has guest
// hooks: those are functions of the agent on purpose, and what the container's
// init gets of the configuration lacks them.
const hookNoise = "cannot serialize hook of type"

// hook hands entries of logrus to the handler.
type hook struct{ handler slog.Handler }

// Levels implements logrus.Hook.
func (hook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h hook) Fire(e *logrus.Entry) error {
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	if strings.HasPrefix(e.Message, hookNoise) {
		return nil
	}
	level := fromLogrus(e.Level)
	if !h.handler.Enabled(ctx, level) {
		return nil
	}
	when := e.Time
	if when.IsZero() {
		when = time.Now()
	}
	r := slog.NewRecord(when, level, withoutQueries(e.Message), 0)
	r.AddAttrs(slog.String("subsystem", "library"))
	for k, v := range e.Data {
		r.AddAttrs(slog.Any(k, v))
	}
	return h.handler.Handle(ctx, r)
}

// withoutQueries takes the queries out of URLs. The image library logs where it
// reads from, and the address of a signed download is as good as a password.
func withoutQueries(s string) string {
	var out strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			break
		}
		end := i + strings.IndexFunc(s[i:]+" ", func(r rune) bool { return unicode.IsSpace(r) || r == '"' })
		url, query, found := strings.Cut(s[:end], "?")
		out.WriteString(url)
		if found && query != "" {
			out.WriteString("?…")
		}
		s = s[end:]
	}
	return out.String() + s
}

func fromLogrus(l logrus.Level) slog.Level {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel:
		return LevelCritical
	case logrus.ErrorLevel:
		return slog.LevelError
	case logrus.WarnLevel:
		return slog.LevelWarn
	case logrus.InfoLevel:
		return slog.LevelInfo
	case logrus.DebugLevel:
		return slog.LevelDebug
	}
	return LevelTrace
}

// bridgeLogrus leads logrus's global logger into h. Its level matters too:
// libcontainer asks it before it builds costly messages.
func bridgeLogrus(h slog.Handler, level slog.Level) {
	l := logrus.StandardLogger()
	l.SetOutput(io.Discard)
	l.ReplaceHooks(logrus.LevelHooks{})
	l.AddHook(hook{h})
	for _, candidate := range logrus.AllLevels { // from panic to trace
		if fromLogrus(candidate) >= level {
			l.SetLevel(candidate)
		}
	}
}
