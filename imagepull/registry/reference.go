package registry

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
)

// maxReference bounds the text of a reference; the grammar allows names of 255
// characters, a tag of 128 and a digest.
const maxReference = 1024

// Reference names an image in a registry, in its full form: host, repository
// and either a tag or a digest. Two texts that mean the same image have equal
// References.
type Reference struct {
	named reference.Named
	tag   string // the tag that a digest overrules, for the log
}

// ParseReference reads what users write: "busybox", "host:5000/app:1" or
// "host/app@sha256:…". A missing host is docker.io and a missing tag is latest.
// Of "app:1@sha256:…" the digest counts, since the tag may have moved.
func ParseReference(s string) (Reference, error) {
	if s == "" || len(s) > maxReference {
		return Reference{}, fmt.Errorf("image reference of %d bytes: %w", len(s), errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(s, "docker://"))
	if err != nil {
		return Reference{}, fmt.Errorf("malformed image reference %q: %w", s, errdefs.ErrInvalidArgument)
	}
	digested, ok := named.(reference.Canonical)
	if !ok {
		return Reference{named: reference.TagNameOnly(named)}, nil
	}
	if err := checkDigest(digested.Digest()); err != nil {
		return Reference{}, fmt.Errorf("image reference %q: %w", s, err)
	}
	r := Reference{}
	if tagged, ok := named.(reference.Tagged); ok {
		r.tag = tagged.Tag()
	}
	r.named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	if err != nil {
		return Reference{}, fmt.Errorf("image reference %q: %w", s, errdefs.ErrInvalidArgument)
	}
	return r, nil
}

// String returns the full form, without a tag that a digest overrules.
func (r Reference) String() string { return r.named.String() }

// Repository returns host and path without tag and digest.
func (r Reference) Repository() string { return r.named.Name() }

// Host returns the registry's host, with the port if it has one.
func (r Reference) Host() string { return reference.Domain(r.named) }

// OverruledTag returns the tag that stood beside a digest, or "".
func (r Reference) OverruledTag() string { return r.tag }

func (r Reference) digest() (digest.Digest, bool) {
	d, ok := r.named.(reference.Canonical)
	if !ok {
		return "", false
	}
	return d.Digest(), true
}
