package encrypt

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	payloadType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signature   = "dev.cosignproject.cosign/signature"
)

// SignOptions say what is signed.
type SignOptions struct {
	// Identity is the repository that the signature vouches for, without tag.
	// It is the image's own when empty, and needed for an OCI layout, which has
	// none.
	Identity string
	Remote   Remote
}

// payload is what is signed: the simple signing format, for one digest in one
// repository.
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest digest.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// Sign signs the image or index at ref (docker://REFERENCE or
// oci:DIRECTORY[:TAG]) by key and puts the signature beside it, under the tag
// sha256-DIGEST.sig where cosign and its verifiers look. Signatures that are
// there stay. It returns the digest that was signed.
func Sign(ctx context.Context, ref string, key crypto.Signer, o SignOptions) (digest.Digest, error) {
	at, err := locate(ctx, ref, o.Remote)
	if err != nil {
		return "", err
	}
	target, err := at.open()
	if err != nil {
		return "", err
	}
	identity := o.Identity
	if identity == "" {
		if at.ref == nil {
			return "", fmt.Errorf("sign %s: an OCI layout does not say for which repository: %w", ref, errdefs.ErrInvalidArgument)
		}
		identity = at.ref.Context().Name()
	}
	signed := digest.Digest(target.digest.String())
	layer, text, err := signatureOf(signed, identity, key)
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", ref, err)
	}
	tag := strings.Replace(signed.String(), ":", "-", 1) + ".sig"
	var box cabinet = layoutCabinet(at.dir)
	if at.dir == "" {
		box = remoteCabinet{at.ref.Context(), at.opts}
	}
	if err := addSignature(box, tag, layer, text); err != nil {
		return "", explain(fmt.Errorf("store signature of %s: %w", ref, err))
	}
	return signed, nil
}

// signatureOf makes the payload and the descriptor that carries its signature.
func signatureOf(d digest.Digest, identity string, key crypto.Signer) (ocispec.Descriptor, []byte, error) {
	var p payload
	p.Critical.Identity.Reference = identity
	p.Critical.Image.Digest = d
	p.Critical.Type = "cosign container image signature"
	text, err := json.Marshal(p)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	sig, err := sign(key, text)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{
		MediaType: payloadType, Digest: digest.FromBytes(text), Size: int64(len(text)),
		Annotations: map[string]string{signature: base64.StdEncoding.EncodeToString(sig)},
	}, text, nil
}

// cabinet is where signatures are kept.
type cabinet interface {
	// manifest returns what has the tag; ErrNotFound when nothing has.
	manifest(tag string) ([]byte, error)
	blob(raw []byte, mediaType string) error
	put(tag string, manifest []byte) error
}

// addSignature appends to the list of signatures, which is an image whose
// layers are payloads.
func addSignature(c cabinet, tag string, layer ocispec.Descriptor, text []byte) error {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	old, err := c.manifest(tag)
	if err == nil {
		var had ocispec.Manifest
		if err := json.Unmarshal(old, &had); err != nil {
			return fmt.Errorf("read signatures: %w", errdefs.ErrInvalidArgument)
		}
		m.Layers = had.Layers
	} else if !errdefs.IsNotFound(err) {
		return err
	}
	if err := c.blob(text, payloadType); err != nil {
		return err
	}
	m.Layers = append(m.Layers, layer)
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range m.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if err := c.blob(raw, ocispec.MediaTypeImageConfig); err != nil {
		return err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if raw, err = json.Marshal(m); err != nil {
		return err
	}
	return c.put(tag, raw)
}

// remoteCabinet is a repository.
type remoteCabinet struct {
	repo name.Repository
	opts []remote.Option
}

func (c remoteCabinet) manifest(tag string) ([]byte, error) {
	d, err := remote.Get(c.repo.Tag(tag), c.opts...)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return nil, errdefs.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return d.Manifest, nil
}

func (c remoteCabinet) blob(raw []byte, mediaType string) error {
	return remote.WriteLayer(c.repo, static.NewLayer(raw, types.MediaType(mediaType)), c.opts...)
}

func (c remoteCabinet) put(tag string, manifest []byte) error {
	return remote.Put(c.repo.Tag(tag), rawManifest(manifest), c.opts...)
}

// rawManifest is a manifest to be written as it is.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// layoutCabinet is the directory of an OCI layout. Tools that copy the image
// from there copy the signature by its tag.
type layoutCabinet string

func (c layoutCabinet) manifest(tag string) ([]byte, error) {
	index, err := layout.ImageIndexFromPath(string(c))
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.Manifests, func(d v1.Descriptor) bool { return d.Annotations[refName] == tag })
	if i < 0 {
		return nil, errdefs.ErrNotFound
	}
	return layout.Path(c).Bytes(m.Manifests[i].Digest)
}

func (c layoutCabinet) blob(raw []byte, _ string) error {
	_, err := storeBlob(string(c), bytes.NewReader(raw))
	return err
}

func (c layoutCabinet) put(tag string, manifest []byte) error {
	desc, err := storeBlob(string(c), bytes.NewReader(manifest))
	if err != nil {
		return err
	}
	desc.MediaType = ocispec.MediaTypeImageManifest
	return tagLayout(layout.Path(c), desc, tag)
}
