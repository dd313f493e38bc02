// Package resource knows the names of things that a key broker holds:
// kbs:///repository/type/tag. It is a leaf: any package may import it, and it
// imports none.
package resource

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// maxSegment bounds one part of a name; brokers keep parts as file names.
	maxSegment = 255
	// maxAuthority bounds the host part, which is ignored.
	maxAuthority = 255

	scheme = "kbs://"
)

// URI names one resource of the key broker that the guest is configured for.
// A value returned by Parse or ParsePath is well formed. One that was put
// together by hand has to pass Check before it becomes part of a URL or a file
// name.
type URI struct{ Repository, Type, Tag string }

// Parse reads kbs:///repository/type/tag. A host between the slashes is
// accepted, as image annotations carry one, and dropped: which broker answers
// is decided by the measured configuration, never by a name from outside.
func Parse(s string) (URI, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return URI{}, fmt.Errorf("resource name does not start with %s: %w", scheme, errdefs.ErrInvalidArgument)
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok {
		return URI{}, fmt.Errorf("resource name has no path: %w", errdefs.ErrInvalidArgument)
	}
	if len(host) > maxAuthority || !allOf(host, isAuthority) {
		return URI{}, fmt.Errorf("resource name has a malformed host: %w", errdefs.ErrInvalidArgument)
	}
	return ParsePath(path)
}

// ParsePath reads repository/type/tag without scheme and host.
func ParsePath(p string) (URI, error) {
	parts := strings.SplitN(p, "/", 4)
	if len(parts) != 3 {
		return URI{}, fmt.Errorf("resource path is not repository/type/tag: %w", errdefs.ErrInvalidArgument)
	}
	u := URI{Repository: parts[0], Type: parts[1], Tag: parts[2]}
	return u, u.Check()
}

// Check reports whether the three parts follow the grammar of the broker:
// letters, digits, underscore, dash and dot, and no dot in front. It wraps
// errdefs.ErrInvalidArgument and does not repeat the offending text.
func (u URI) Check() error {
	for _, part := range []struct{ name, text string }{
		{"repository", u.Repository}, {"type", u.Type}, {"tag", u.Tag},
	} {
		if part.text == "" || len(part.text) > maxSegment || part.text[0] == '.' || !allOf(part.text, isSegment) {
			return fmt.Errorf("resource %s is malformed: %w", part.name, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// String returns kbs:///repository/type/tag.
func (u URI) String() string { return scheme + "/" + u.Path() }

// Path returns repository/type/tag.
func (u URI) Path() string { return u.Repository + "/" + u.Type + "/" + u.Tag }

func allOf(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isSegment(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// isAuthority accepts host names, addresses and ports.
func isAuthority(c byte) bool { return isSegment(c) || c == ':' || c == '[' || c == ']' }
