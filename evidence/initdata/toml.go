package initdata

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"
)

// The library's time grows with the square of the depth, and of the number of
// parts in a dotted key: forty kilobytes of nested tables take seconds. The
// texts that this is for are flat, so both are bounded before it runs.
const (
	maxDepth = 16
	maxDots  = 64 // on one line
)

// DecodeTOML turns TOML text of at most max bytes into plain maps. Depth is
// bounded too, so the time it takes is. It serves the document and the files in
// it, and whatever else has their form. Struct decoding is avoided on purpose:
// it matches keys without regard to case. Errors wrap
// errdefs.ErrInvalidArgument and show nothing of the text.
func DecodeTOML(raw []byte, max int) (map[string]any, error) {
	if len(raw) > max {
		return nil, fmt.Errorf("larger than %d bytes: %w", max, errdefs.ErrInvalidArgument)
	}
	if !shallow(raw) {
		return nil, fmt.Errorf("nested too deep: %w", errdefs.ErrInvalidArgument)
	}
	top := map[string]any{}
	if err := toml.Unmarshal(raw, &top); err != nil {
		line := 0
		if pe := (toml.ParseError{}); errors.As(err, &pe) {
			line = pe.Position.Line
		}
		return nil, fmt.Errorf("malformed TOML in line %d: %w", line, errdefs.ErrInvalidArgument)
	}
	return top, nil
}

// text returns the string under key.
func text(table map[string]any, key string) (string, error) {
	s, ok := table[key].(string)
	if !ok {
		return "", fmt.Errorf("%s is not a text: %w", key, errdefs.ErrInvalidArgument)
	}
	return s, nil
}

// shallow walks over the text outside strings and comments and reports whether
// depth and dots stay within bounds. On malformed text it may err to either
// side; the parser then refuses it.
func shallow(raw []byte) bool {
	depth, dots := 0, 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"', '\'':
			i = skipString(raw, i)
		case '#':
			i += max(bytes.IndexByte(raw[i:], '\n'), 1) - 1
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '.':
			dots++
		case '\n':
			dots = 0
		}
		if depth > maxDepth || dots > maxDots {
			return false
		}
	}
	return true
}

// skipString returns the index of the last byte of the string that starts at
// i. A string on one line ends with the line even when it is not closed.
func skipString(raw []byte, i int) int {
	quote := raw[i : i+1]
	if triple := bytes.Repeat(quote, 3); bytes.HasPrefix(raw[i:], triple) {
		quote = triple
	}
	basic := quote[0] == '"'
	for j := i + len(quote); j < len(raw); j++ {
		switch {
		case basic && raw[j] == '\\':
			j++
		case bytes.HasPrefix(raw[j:], quote):
			return j + len(quote) - 1
		case raw[j] == '\n' && len(quote) == 1:
			return j - 1
		}
	}
	return len(raw)
}
