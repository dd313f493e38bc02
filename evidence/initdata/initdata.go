// Package initdata knows the document with which the owner of a pod configures
// its guest through an untrusted host: what it holds, how it is hashed for the
// launch measurement, and how it is packed on the disk the host attaches. It
// is a leaf without input or output of its own.
//
// The TOML library is used because the verifier parses the same text and the
// reference guest the files in it, so the whole grammar has to be understood and
// not a subset of it.
package initdata

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/containerd/errdefs"
)

// MaxSize bounds the text of a document. A policy of a large pod is some
// hundred kilobytes; an annotation, which is how it arrives, holds less.
const MaxSize = 4 << 20

// Names of the entries that this program reads. Others are left alone.
const (
	AgentConfig = "aa.toml"     // attestation settings, among them the key broker
	HubConfig   = "cdh.toml"    // secrets and image settings
	Policy      = "policy.rego" // the policy for calls from the host
)

// version is the only revision of the format there is.
const version = "0.1.0"

// Document is a parsed document together with the bytes it came from. Only the
// bytes are measured: never re-encode one.
type Document struct {
	Version   string
	Algorithm string            // sha256, sha384 or sha512
	Data      map[string]string // entries by name
	Raw       []byte            // the TOML text as delivered
}

// Parse reads a document. Keys are matched exactly as the verifier matches
// them, so a second spelling of one cannot show the two sides different
// contents. Unknown keys are skipped, as they are by the verifier. Errors wrap
// errdefs.ErrInvalidArgument.
func Parse(raw []byte) (*Document, error) {
	top, err := DecodeTOML(raw, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("parse initdata: %w", err)
	}
	d := &Document{Raw: raw}
	if d.Version, err = text(top, "version"); err != nil {
		return nil, fmt.Errorf("parse initdata: %w", err)
	}
	if d.Version != version {
		return nil, fmt.Errorf("parse initdata: version is not %s: %w", version, errdefs.ErrInvalidArgument)
	}
	if d.Algorithm, err = text(top, "algorithm"); err != nil {
		return nil, fmt.Errorf("parse initdata: %w", err)
	}
	if _, err := Digest(d.Algorithm, nil); err != nil {
		return nil, fmt.Errorf("parse initdata: %w", err)
	}
	if d.Data, err = entries(top); err != nil {
		return nil, fmt.Errorf("parse initdata: %w", err)
	}
	return d, nil
}

// entries reads the [data] table, in which every value is a text.
func entries(top map[string]any) (map[string]string, error) {
	table, ok := top["data"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("data is not a table: %w", errdefs.ErrInvalidArgument)
	}
	data := make(map[string]string, len(table))
	for name, v := range table {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("an entry of data is not a text: %w", errdefs.ErrInvalidArgument)
		}
		data[name] = s
	}
	return data, nil
}

// Digest hashes the text with the named algorithm. The names carry no dash, as
// in the document. An unknown one wraps errdefs.ErrInvalidArgument.
func Digest(algorithm string, raw []byte) ([]byte, error) {
	switch algorithm {
	case "sha256":
		d := sha256.Sum256(raw)
		return d[:], nil
	case "sha384":
		d := sha512.Sum384(raw)
		return d[:], nil
	case "sha512":
		d := sha512.Sum512(raw)
		return d[:], nil
	}
	return nil, fmt.Errorf("algorithm is not sha256, sha384 or sha512: %w", errdefs.ErrInvalidArgument)
}

// Digest hashes the document with its own algorithm. It is nil for a document
// that did not come from Parse and names an unknown one.
func (d *Document) Digest() []byte {
	sum, err := Digest(d.Algorithm, d.Raw)
	if err != nil {
		return nil
	}
	return sum
}

// Pad fits a digest into the register of a platform: a long one is cut, a
// short one filled with zeros on the right. The host that writes the register
// and the verifier that reads it follow the same rule.
func Pad(digest []byte, size int) []byte {
	out := make([]byte, size)
	copy(out, digest)
	return out
}
