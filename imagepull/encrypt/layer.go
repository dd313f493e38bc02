package encrypt

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/ocicrypt/blockcipher"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/decrypt"
)

// writer puts an encrypted image into an OCI layout.
type writer struct {
	ctx     context.Context
	options Options
	path    layout.Path
	layers  map[string]ocispec.Descriptor // by plain digest: a layer is encrypted once
}

// image writes configuration, layers and manifest. The configuration stays as
// it is: diff ids are those of the plain layers.
func (w *writer) image(img v1.Image) (ocispec.Descriptor, error) {
	old, err := img.Manifest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Annotations: old.Annotations}
	m.SchemaVersion = 2
	if m.Config, err = w.blob(config, ocispec.MediaTypeImageConfig); err != nil {
		return ocispec.Descriptor{}, err
	}
	for i, d := range old.Layers {
		if err := w.ctx.Err(); err != nil {
			return ocispec.Descriptor{}, err
		}
		layer, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		desc, err := w.layer(layer, d, fmt.Sprintf("encrypt layer %d of %d", i+1, len(old.Layers)))
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		m.Layers = append(m.Layers, desc)
	}
	return w.document(m, m.MediaType)
}

// ociLayers brings the names of plain layers to OCI's, which alone have
// encrypted siblings.
var ociLayers = map[types.MediaType]string{
	types.OCILayer:                ocispec.MediaTypeImageLayerGzip,
	types.OCIUncompressedLayer:    ocispec.MediaTypeImageLayer,
	types.OCILayerZStd:            ocispec.MediaTypeImageLayerZstd,
	types.DockerLayer:             ocispec.MediaTypeImageLayerGzip,
	types.DockerUncompressedLayer: ocispec.MediaTypeImageLayer,
}

func (w *writer) layer(layer v1.Layer, old v1.Descriptor, step string) (ocispec.Descriptor, error) {
	if desc, done := w.layers[old.Digest.String()]; done {
		return desc, nil
	}
	body, err := layer.Compressed()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer body.Close()
	r := &observed{body, w.options.Observe, Progress{Step: step, Total: old.Size}}
	var desc ocispec.Descriptor
	if _, encrypted := decrypt.MediaType(string(old.MediaType)); encrypted {
		desc, err = w.stream(r)
		desc.MediaType, desc.Annotations = string(old.MediaType), old.Annotations
	} else if mediaType := ociLayers[old.MediaType]; mediaType == "" {
		return desc, fmt.Errorf("media type %s cannot be encrypted: %w", old.MediaType, errdefs.ErrNotImplemented)
	} else {
		desc, err = w.encrypt(r, digest.Digest(old.Digest.String()))
		desc.MediaType = mediaType + "+encrypted"
		maps.Copy(desc.Annotations, old.Annotations)
	}
	if err == nil {
		w.layers[old.Digest.String()] = desc
	}
	return desc, err
}

// observed tells how much was read.
type observed struct {
	r       io.Reader
	observe func(Progress)
	at      Progress
}

func (o *observed) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.at.Done += int64(n)
	o.observe(o.at)
	return n, err
}

// encrypt writes the ciphertext of r and returns it with its annotations.
func (w *writer) encrypt(r io.Reader, plain digest.Digest) (ocispec.Descriptor, error) {
	handler, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	verifier := plain.Verifier()
	ciphertext, finish, err := handler.Encrypt(io.TeeReader(r, verifier), blockcipher.AES256CTR)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := w.stream(ciphertext)
	if err != nil {
		return desc, err
	}
	if !verifier.Verified() {
		return desc, fmt.Errorf("content does not match digest %s: %w", plain, errdefs.ErrDataLoss)
	}
	opts, err := finish()
	if err != nil {
		return desc, err
	}
	defer clear(opts.Private.SymmetricKey)
	opts.Private.Digest = plain
	desc.Annotations, err = w.options.annotations(opts)
	return desc, err
}

// annotations wraps the layer's key.
func (o Options) annotations(opts blockcipher.LayerBlockCipherOptions) (map[string]string, error) {
	private, err := json.Marshal(opts.Private)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	public, err := json.Marshal(opts.Public)
	if err != nil {
		return nil, err
	}
	p := decrypt.Packet{KeyID: o.KeyID.String(), WrapType: o.WrapType, IV: make([]byte, 12)}
	if o.WrapType == decrypt.CTR {
		p.IV = make([]byte, 16)
	}
	rand.Read(p.IV)
	if o.Version2 {
		p.Version, p.Provider = decrypt.PacketVersion, "kbs"
		p.Settings, p.Annotations = json.RawMessage("{}"), json.RawMessage("{}")
	}
	if err := p.Seal(o.Key, secret.Bytes(private)); err != nil {
		return nil, err
	}
	packet, err := p.Encode()
	return map[string]string{
		decrypt.ProviderPrefix + o.Provider: packet,
		decrypt.PublicOptions:               base64.StdEncoding.EncodeToString(public),
	}, err
}

// blob writes bytes to the layout.
func (w *writer) blob(raw []byte, mediaType string) (ocispec.Descriptor, error) {
	desc, err := w.stream(bytes.NewReader(raw))
	desc.MediaType = mediaType
	return desc, err
}

// stream writes all of r to the layout under its digest.
func (w *writer) stream(r io.Reader) (ocispec.Descriptor, error) { return storeBlob(string(w.path), r) }

func storeBlob(dir string, r io.Reader) (desc ocispec.Descriptor, err error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return desc, err
	}
	f, err := os.CreateTemp(blobs, ".new-")
	if err != nil {
		return desc, err
	}
	defer os.Remove(f.Name())
	d := digest.SHA256.Digester()
	n, err := io.Copy(io.MultiWriter(f, d.Hash()), r)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return desc, err
	}
	desc = ocispec.Descriptor{Digest: d.Digest(), Size: n}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return desc, err
	}
	return desc, os.Rename(f.Name(), filepath.Join(blobs, desc.Digest.Encoded()))
}

// tagLayout makes desc the layout's entry for tag, in place of an older one.
func tagLayout(path layout.Path, desc ocispec.Descriptor, tag string) error {
	if err := path.RemoveDescriptors(func(d v1.Descriptor) bool {
		return d.Annotations[refName] == tag || d.Digest.String() == desc.Digest.String()
	}); err != nil {
		return fmt.Errorf("write OCI layout: %w", err)
	}
	hash, err := v1.NewHash(desc.Digest.String())
	if err != nil {
		return err
	}
	entry := v1.Descriptor{MediaType: types.MediaType(desc.MediaType), Size: desc.Size, Digest: hash}
	if tag = strings.TrimSpace(tag); tag != "" {
		entry.Annotations = map[string]string{refName: tag}
	}
	return path.AppendDescriptor(entry)
}
