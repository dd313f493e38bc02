// Package encrypt makes what package imagepull opens: it encrypts the layers of
// images, wraps their keys, and signs images. It serves command line tools and
// tests and is not linked into the agent.
//
// It uses github.com/google/go-containerregistry to read and write registries
// and OCI layouts, which unlike the library of package registry can also write
// without dragging in a store, and github.com/containers/ocicrypt's cipher, so
// that the format is that of the tools in use.
package encrypt

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/decrypt"
)

// Options say how an image is encrypted.
type Options struct {
	// Key has 32 bytes and wraps the layers' keys; KeyID is the name by which
	// guests ask the key broker for it.
	Key   secret.Bytes
	KeyID resource.URI
	// Provider is the last part of the annotation's name; attestation-agent.
	Provider string
	WrapType string // decrypt.GCM when empty
	// Version2 writes annotation packets with a version.
	Version2 bool
	Remote   Remote
	// Observe, if not nil, is told how far things are, often and from one
	// goroutine at a time.
	Observe func(Progress)
}

// Progress is a moment in the life of Encrypt.
type Progress struct {
	Step  string // "encrypt layer 2 of 5" for instance; the same while one thing is done
	Done  int64  // bytes
	Total int64  // bytes, 0 while it is not known
}

// DefaultProvider is the name under which existing guests look for keys.
const DefaultProvider = "attestation-agent"

func (o Options) withDefaults() (Options, error) {
	o.Provider = cmp.Or(o.Provider, DefaultProvider)
	o.WrapType = cmp.Or(o.WrapType, decrypt.GCM)
	if o.Observe == nil {
		o.Observe = func(Progress) {}
	}
	if len(o.Key) != 32 {
		return o, fmt.Errorf("key of %d bytes, not 32: %w", len(o.Key), errdefs.ErrInvalidArgument)
	}
	return o, o.KeyID.Check()
}

// Encrypt reads the image or index at src, encrypts every layer that is not
// encrypted yet, and writes the result to dst. Both are docker://REFERENCE or
// oci:DIRECTORY[:TAG]. It returns the digest of what it wrote. Signatures of
// src do not fit dst; sign again.
func Encrypt(ctx context.Context, src, dst string, o Options) (digest.Digest, error) {
	o, err := o.withDefaults()
	if err != nil {
		return "", fmt.Errorf("encrypt image: %w", err)
	}
	from, err := locate(ctx, src, o.Remote)
	if err != nil {
		return "", err
	}
	to, err := locate(ctx, dst, o.Remote)
	if err != nil {
		return "", err
	}
	in, err := from.open()
	if err != nil {
		return "", err
	}
	dir := to.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "encrypted-image-"); err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
	}
	path, err := openOrCreate(dir)
	if err != nil {
		return "", fmt.Errorf("open OCI layout: %w", err)
	}
	w := &writer{ctx: ctx, options: o, path: path, layers: map[string]ocispec.Descriptor{}}
	desc, err := w.artifact(in)
	if err != nil {
		return "", fmt.Errorf("encrypt %s: %w", src, err)
	}
	if err := tagLayout(path, desc, to.tag); err != nil {
		return "", err
	}
	if to.dir == "" {
		err = push(path, to, o.Observe)
	}
	return desc.Digest, err
}

// push copies an image or index from a layout to a registry.
func push(path layout.Path, to location, observe func(Progress)) error {
	local, err := location{dir: string(path)}.open()
	if err != nil {
		return err
	}
	updates, told := make(chan v1.Update, 16), make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates { // the library closes it
			observe(Progress{"write " + to.ref.String(), u.Complete, u.Total})
		}
	}()
	opts := append(slices.Clone(to.opts), remote.WithProgress(updates))
	if local.index != nil {
		err = remote.WriteIndex(to.ref, local.index, opts...)
	} else {
		err = remote.Write(to.ref, local.image, opts...)
	}
	<-told
	if err != nil {
		return explain(fmt.Errorf("write %s: %w", to.ref, err))
	}
	return nil
}

// artifact encrypts an image or, of an index, every image that runs somewhere.
// Attestations that builders put into indexes describe the plain layers and are
// left out.
func (w *writer) artifact(in artifact) (ocispec.Descriptor, error) {
	if in.image != nil {
		return w.image(in.image)
	}
	old, err := in.index.IndexManifest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Annotations: old.Annotations}
	index.SchemaVersion = 2
	for _, d := range old.Manifests {
		if !d.MediaType.IsImage() || d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		img, err := in.index.Image(d.Digest)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		desc, err := w.image(img)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if p := d.Platform; p != nil {
			desc.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
		}
		desc.Annotations = d.Annotations
		index.Manifests = append(index.Manifests, desc)
	}
	return w.document(index, ocispec.MediaTypeImageIndex)
}

func (w *writer) document(v any, mediaType string) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return w.blob(raw, mediaType)
}
