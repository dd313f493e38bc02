// Package wire stands between the messages of the protocol and the rest of the
// program. It checks the shape of every request, turns the messages that carry
// an OCI runtime specification into the real one and back, and renders a
// request as the JSON that policies are written against.
//
// Everything in a message comes from the host and is hostile. The order is
// therefore: Validate, then the policy with PolicyInput, then the conversions.
// Nothing here touches the machine or keeps state, so every function may be
// called from anywhere.
//
// The protobuf runtime is used for reflection over descriptors, which lets one
// walk serve all messages, those added later included.
package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// Bounds on single values. A message as a whole is bounded by the transport.
const (
	maxID       = 128
	maxName     = 255
	maxPath     = 4095      // PATH_MAX without its NUL
	maxText     = 128 << 10 // MAX_ARG_STRLEN: the longest argument execve takes
	maxMetadata = 512 << 10 // Kubernetes allows a pod 256 KiB of annotations, and JSON escapes
	maxData     = 1 << 20
	maxElements = 1 << 16 // list elements and map entries of one message
)

// invalid names the field at fault. The text goes to the host, so it holds no
// value of another field, and a value only if it is short and quoted.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// CheckContainerID accepts what may become the name of a directory and of a
// cgroup: at least two characters, the first a letter or digit, the others
// also '_', '.' or '-'.
func CheckContainerID(field, id string) error {
	if len(id) < 2 {
		return invalid(field, "must have at least two characters")
	}
	return checkName(field, id, maxID)
}

// CheckExecID accepts a name of a process within its container.
func CheckExecID(field, id string) error {
	if id == "" {
		return invalid(field, "must not be empty")
	}
	return checkName(field, id, maxID)
}

func checkName(field, s string, limit int) error {
	if len(s) > limit {
		return invalid(field, "longer than %d bytes", limit)
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return invalid(field, "character %q at position %d", c, i)
		}
	}
	return nil
}

// CheckPath accepts an absolute path without NUL. It does not look at "..":
// whoever uses the path resolves it below a root.
func CheckPath(field, path string) error {
	if err := checkText(field, path, maxPath); err != nil {
		return err
	}
	if !strings.HasPrefix(path, "/") {
		return invalid(field, "must be an absolute path")
	}
	return nil
}

func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return invalid(field, "longer than %d bytes", limit)
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		return invalid(field, "NUL at position %d", i)
	}
	if !utf8.ValidString(s) {
		// JSON would carry something else to the policy.
		return invalid(field, "must be UTF-8")
	}
	return nil
}
