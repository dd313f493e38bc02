package registry

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of docker, which differ from OCI's in name alone.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

const (
	maxManifest  = 4 << 20
	maxConfig    = 4 << 20
	maxInstances = 1024    // entries of an index
	maxBlob      = 1 << 40 // bytes of one layer, so that sums cannot overflow
)

// checkDigest accepts the algorithms whose strength is undisputed and their one
// spelling.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("malformed digest %.140q: %w", string(d), errdefs.ErrInvalidArgument)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("digest algorithm %.20q is neither sha256 nor sha512: %w", a.String(), errdefs.ErrInvalidArgument)
	}
	return nil
}

// document is a parsed manifest: exactly one of its fields is set.
type document struct {
	index *v1.Index
	image *v1.Manifest
}

// parseDocument reads an index or the manifest of an image. What it is follows
// from the body; a media type in the body or the header that says otherwise is
// refused, since another reader could go by that.
func parseDocument(raw []byte, header string) (document, error) {
	bad := func(format string, args ...any) (document, error) {
		return document{}, fmt.Errorf("manifest "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
	}
	if len(raw) > maxManifest {
		return bad("of %d bytes", len(raw))
	}
	if err := CheckJSON(raw); err != nil {
		return document{}, fmt.Errorf("manifest: %w", err)
	}
	var head struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return bad("is no JSON object of the right shape")
	}
	if head.SchemaVersion != 2 {
		return document{}, fmt.Errorf("manifest of schema version %d: %w", head.SchemaVersion, errdefs.ErrNotImplemented)
	}
	isIndex := head.Manifests != nil
	if isIndex == (head.Layers != nil || head.Config != nil) {
		return bad("is not clearly an index or an image")
	}
	for _, mediaType := range []string{head.MediaType, header} {
		if known, index := kindOf(mediaType); known && index != isIndex {
			return bad("has a body that contradicts its media type")
		}
	}
	if isIndex {
		index := &v1.Index{}
		if err := json.Unmarshal(raw, index); err != nil {
			return bad("is a malformed index")
		}
		return document{index: index}, checkIndex(index)
	}
	image := &v1.Manifest{}
	if err := json.Unmarshal(raw, image); err != nil {
		return bad("is malformed")
	}
	return document{image: image}, nil
}

// kindOf tells whether mediaType is one of a manifest, and of which.
func kindOf(mediaType string) (known, index bool) {
	switch mediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
		return true, false
	case v1.MediaTypeImageIndex, dockerList:
		return true, true
	}
	return false, false
}

func checkIndex(index *v1.Index) error {
	if n := len(index.Manifests); n == 0 || n > maxInstances {
		return fmt.Errorf("index of %d images: %w", n, errdefs.ErrInvalidArgument)
	}
	return nil
}

// checkImage refuses images that the guest cannot or must not use. An image
// without a layer has no root file system to start in.
func checkImage(m *v1.Manifest, maxLayers int) error {
	switch m.Config.MediaType {
	case v1.MediaTypeImageConfig, dockerConfig:
	default:
		return fmt.Errorf("configuration of type %.80q is not an image's: %w", m.Config.MediaType, errdefs.ErrInvalidArgument)
	}
	if n := len(m.Layers); n == 0 || n > maxLayers {
		return fmt.Errorf("image of %d layers, 1 to %d are possible: %w", n, maxLayers, errdefs.ErrInvalidArgument)
	}
	if err := checkDescriptor(m.Config, maxConfig); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for i, l := range m.Layers {
		if err := checkDescriptor(l, maxBlob); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		if strings.Contains(l.MediaType, ".foreign.") {
			return fmt.Errorf("layer %d is of type %.80q: %w", i+1, l.MediaType, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// checkDescriptor refuses URLs: they would send the guest to any address that
// the image's author names.
func checkDescriptor(d v1.Descriptor, maxSize int64) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 || d.Size > maxSize {
		return fmt.Errorf("size %d: %w", d.Size, errdefs.ErrInvalidArgument)
	}
	if len(d.URLs) > 0 {
		return fmt.Errorf("blob at a URL outside the registry: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
