package image

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
)

// A stanza is one paragraph of Debian's control format: field names in lower
// case, continuation lines joined by newlines. Apt's sources, apt's package
// records and packages.lock are all written in it.
type stanza map[string]string

// parseStanzas reads paragraphs separated by blank lines. A line that starts
// with # is a comment, also in the middle of a field.
func parseStanzas(r io.Reader) ([]stanza, error) {
	var all []stanza
	var current stanza
	field := ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			current, field = nil, ""
		case line[0] == ' ' || line[0] == '\t':
			if field == "" {
				return nil, fmt.Errorf("line %d continues no field: %w", number, errdefs.ErrInvalidArgument)
			}
			current[field] += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("line %d has no field name: %w", number, errdefs.ErrInvalidArgument)
			}
			if current == nil {
				current = stanza{}
				all = append(all, current)
			}
			field = strings.ToLower(strings.TrimSpace(name))
			current[field] = strings.TrimSpace(value)
		}
	}
	return all, lines.Err()
}
