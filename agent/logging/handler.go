package logging

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
)

// Bounds of one line. Values come from the host and from containers.
const (
	maxValue  = 4 << 10
	maxKey    = 128
	maxFields = 64
)

// field is one key of a line. All values are texts: Kata's parser of the lines
// refuses others.
type field struct{ key, value string }

// handler turns records into lines. It is immutable.
type handler struct {
	sink   *Sink
	level  slog.Level
	fixed  []field // of the program
	attrs  []field // of the logger, see WithAttrs
	prefix string  // of open groups
}

func newHandler(s *Sink, level slog.Level, version string) *handler {
	return &handler{sink: s, level: level, fixed: []field{
		{"version", version},
		{"pid", strconv.Itoa(os.Getpid())},
		{"name", "kata-agent"},
		{"source", "agent"},
		{"subsystem", "root"},
	}}
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements slog.Handler. It never fails and never waits: logging must
// not hold up or break what it reports.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	fields := make([]field, 0, 16)
	fields = append(fields,
		field{"msg", clip(r.Message, maxValue)},
		field{"level", levelName(r.Level)},
		field{"ts", r.Time.UTC().Format(time.RFC3339Nano)})
	fields = append(fields, h.fixed...)
	if id, ok := ctx.Value(requestKey).(string); ok {
		fields = add(fields, "request-id", id)
	}
	if id, ok := ctx.Value(containerKey).(string); ok {
		fields = add(fields, "container-id", id)
	}
	for _, a := range h.attrs {
		fields = add(fields, a.key, a.value)
	}
	r.Attrs(func(a slog.Attr) bool {
		fields = addAttr(fields, h.prefix, a)
		return true
	})
	h.sink.put(encode(fields))
	return nil
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]field(nil), h.attrs...)
	for _, a := range attrs {
		next.attrs = addAttr(next.attrs, h.prefix, a)
	}
	return &next
}

// WithGroup implements slog.Handler. Lines are flat, so the names of groups
// become part of the key.
func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.prefix += name + "."
	}
	return &next
}

func addAttr(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		if a.Key == "" {
			return fields
		}
		return add(fields, prefix+a.Key, text(v))
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, member := range v.Group() {
		fields = addAttr(fields, prefix, member)
	}
	return fields
}

// add puts a field in. Keys are unique in a line: of two the later one counts,
// but none takes the place of what the program itself says.
func add(fields []field, key, value string) []field {
	key = clip(key, maxKey)
	switch key {
	case "msg", "level", "ts", "version", "pid", "name", "source":
		key += "_"
	}
	value = clip(value, maxValue)
	for i := range fields {
		if fields[i].key == key {
			fields[i].value = value
			return fields
		}
	}
	if len(fields) >= maxFields {
		return fields
	}
	return append(fields, field{key, value})
}

func text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindString:
		return v.String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindAny:
		return fmt.Sprintf("%+v", v.Any()) // survives methods that panic
	}
	return v.String()
}

func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max], "") + "…"
}

func encode(fields []field) []byte {
	line := append(make([]byte, 0, 512), '{')
	for i, f := range fields {
		if i > 0 {
			line = append(line, ',')
		}
		line = appendText(line, f.key)
		line = append(line, ':')
		line = appendText(line, f.value)
	}
	return append(line, '}', '\n')
}

func appendText(line []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // cannot happen to a string
		return append(line, `""`...)
	}
	return append(line, quoted...)
}

func levelName(l slog.Level) string {
	switch {
	case l >= LevelCritical:
		return "CRIT"
	case l >= slog.LevelError:
		return "ERRO"
	case l >= slog.LevelWarn:
		return "WARN"
	case l >= slog.LevelInfo:
		return "INFO"
	case l >= slog.LevelDebug:
		return "DEBG"
	}
	return "TRCE"
}
