package registry

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Registry is one rule for the references that begin with Prefix.
type Registry struct {
	Prefix   string // "host/path" or "*.host"; Location when empty
	Location string // what replaces the prefix; Prefix when empty
	// Insecure allows plain HTTP, and TLS with any certificate. The digests and
	// signatures of images still count; names, sizes and credentials are open.
	Insecure bool
	Blocked  bool
	Mirrors  []Mirror // tried in order, before Location
}

// Mirror is another place for the same images. Policies are evaluated for the
// name that was asked for, wherever the image came from.
type Mirror struct {
	Location string
	Insecure bool
}

// registriesFile writes the rules in the syntax of registries.conf.
func registriesFile(rules []Registry) ([]byte, error) {
	var b bytes.Buffer
	for _, r := range rules {
		b.WriteString("[[registry]]\n")
		location := r.Location
		if !strings.HasPrefix(r.Prefix, "*.") {
			location = cmp.Or(location, r.Prefix) // the library wants one
		}
		if err := writeStrings(&b, "prefix", r.Prefix, "location", location); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "insecure = %t\nblocked = %t\n", r.Insecure, r.Blocked)
		for _, m := range r.Mirrors {
			b.WriteString("[[registry.mirror]]\n")
			if err := writeStrings(&b, "location", m.Location); err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "insecure = %t\n", m.Insecure)
		}
	}
	return b.Bytes(), nil
}

// writeStrings writes keys and values. Values are names of hosts and paths and
// hold nothing that needs an escape.
func writeStrings(b *bytes.Buffer, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		key, value := pairs[i], pairs[i+1]
		for _, c := range []byte(value) {
			if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
				return fmt.Errorf("registry %s %.80q: %w", key, value, errdefs.ErrInvalidArgument)
			}
		}
		if value != "" {
			fmt.Fprintf(b, "%s = \"%s\"\n", key, value)
		}
	}
	return nil
}
