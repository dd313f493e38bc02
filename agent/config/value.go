package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// value knows how one setting is written, and where it is kept. Errors of
// text and tree say what is wrong with the value; the caller adds the key.
type value interface {
	text(c *Config, s string) error // on the command line or in the environment
	tree(c *Config, v any) error    // in a decoded TOML file
	show(c *Config) string          // for people; "" when unset
	kind() string                   // for people: type and bounds
}

// errBounds marks a well-formed value outside its bounds. From the host such a
// value is passed over, as in the reference agent; in a file it is an error.
var errBounds = errors.New("out of bounds")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// boolean is a boolean. The reference agent's reading on the command line takes
// numbers, and anything it does not understand for false; strict does not.
type boolean struct {
	at     func(*Config) *bool
	strict bool
}

func (b boolean) text(c *Config, s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	yes := s == "true" || err == nil && n != 0
	if b.strict && s != "true" && s != "false" {
		return malformed("neither true nor false")
	}
	*b.at(c) = yes
	return nil
}

func (b boolean) tree(c *Config, v any) error {
	yes, ok := v.(bool)
	if !ok {
		return malformed("neither true nor false")
	}
	*b.at(c) = yes
	return nil
}

func (b boolean) show(c *Config) string { return strconv.FormatBool(*b.at(c)) }
func (b boolean) kind() string          { return "true or false" }

type integer interface {
	int | int64 | uint8 | uint32 | uint64
}

// number is an integer between two bounds.
type number[T integer] struct {
	at       func(*Config) *T
	min, max int64
}

func (n number[T]) text(c *Config, s string) error {
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return malformed("not a number")
	}
	return n.tree(c, i)
}

func (n number[T]) tree(c *Config, v any) error {
	i, ok := v.(int64)
	if !ok {
		return malformed("not a number")
	}
	if i < n.min || i > n.max {
		return fmt.Errorf("%w %d to %d: %w", errBounds, n.min, n.max, errdefs.ErrInvalidArgument)
	}
	*n.at(c) = T(i)
	return nil
}

func (n number[T]) show(c *Config) string { return fmt.Sprint(*n.at(c)) }
func (n number[T]) kind() string          { return fmt.Sprintf("%d to %d", n.min, n.max) }

// seconds is a duration. Files may also write it as a table of secs and nanos.
type seconds struct {
	at  func(*Config) *time.Duration
	max int64
}

func (d seconds) text(c *Config, s string) error {
	i, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return malformed("not a number of seconds")
	}
	return d.tree(c, int64(i))
}

func (d seconds) tree(c *Config, v any) error {
	t, ok := v.(map[string]any)
	if !ok {
		return d.set(c, v, int64(0))
	}
	nanos, ok := t["nanos"]
	if !ok {
		nanos = int64(0)
	}
	for name := range t {
		if name != "secs" && name != "nanos" {
			return malformed("not a table of secs and nanos")
		}
	}
	return d.set(c, t["secs"], nanos)
}

func (d seconds) set(c *Config, secs, nanos any) error {
	s, ok1 := secs.(int64)
	n, ok2 := nanos.(int64)
	if !ok1 || !ok2 || n < 0 || n >= int64(time.Second) {
		return malformed("not a number of seconds")
	}
	if s < 1 || s > d.max {
		return fmt.Errorf("%w 1 to %d seconds: %w", errBounds, d.max, errdefs.ErrInvalidArgument)
	}
	*d.at(c) = time.Duration(s)*time.Second + time.Duration(n)
	return nil
}

func (d seconds) show(c *Config) string { return strconv.Itoa(int(*d.at(c) / time.Second)) }
func (d seconds) kind() string          { return fmt.Sprintf("seconds, 1 to %d", d.max) }

const maxString = 4 << 10

// str is a text that check accepts; a nil check accepts all. Empty texts are
// accepted from files, where they unset.
type str struct {
	at    func(*Config) *string
	check func(string) error
	max   int // 0 is maxString
	is    string
}

func (s str) text(c *Config, v string) error {
	if v == "" {
		return malformed("empty")
	}
	return s.set(c, v)
}

func (s str) tree(c *Config, v any) error {
	t, ok := v.(string)
	if !ok {
		return malformed("not a text")
	}
	return s.set(c, t)
}

func (s str) set(c *Config, v string) error {
	limit := s.max
	if limit == 0 {
		limit = maxString
	}
	if len(v) > limit {
		return malformed("longer than %d bytes", limit)
	}
	if v != "" && s.check != nil {
		if err := s.check(v); err != nil {
			return err
		}
	}
	*s.at(c) = v
	return nil
}

func (s str) show(c *Config) string { return *s.at(c) }
func (s str) kind() string          { return s.is }

// choice is one of a few words.
func choice(at func(*Config) *string, words ...string) str {
	return str{at: at, is: strings.Join(words, ", "), check: func(s string) error {
		if !slices.Contains(words, s) {
			return malformed("none of %s", strings.Join(words, ", "))
		}
		return nil
	}}
}

// level is a log level in the words of the reference agent.
type level struct{}

func parseLevel(s string) (slog.Level, bool) {
	switch s {
	case "fatal", "panic", "critical":
		return slog.LevelError + 4, true
	case "error":
		return slog.LevelError, true
	case "warn", "warning":
		return slog.LevelWarn, true
	case "info":
		return slog.LevelInfo, true
	case "debug":
		return slog.LevelDebug, true
	case "trace":
		return slog.LevelDebug - 4, true
	}
	return 0, false
}

// talkative levels show what containers and their owners say.
func talkative(s string) bool {
	l, ok := parseLevel(s)
	return ok && l < slog.LevelInfo
}

func (level) text(c *Config, s string) error {
	l, ok := parseLevel(s)
	if !ok {
		return malformed("no log level")
	}
	c.Log.Level = l
	return nil
}

func (l level) tree(c *Config, v any) error {
	s, _ := v.(string)
	return l.text(c, s)
}

func (level) show(c *Config) string { return strings.ToLower(c.Log.Level.String()) }
func (level) kind() string {
	return "fatal, panic, critical, error, warn, warning, info, debug, trace"
}

// inert is a key that is known and does nothing here. Any value will do.
type inert struct{ is string }

func (inert) text(*Config, string) error { return nil }
func (inert) tree(*Config, any) error    { return nil }
func (inert) show(*Config) string        { return "" }
func (i inert) kind() string             { return i.is }
