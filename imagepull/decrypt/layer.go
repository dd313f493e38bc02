// Package decrypt opens encrypted layers: it finds the wrapped key in a layer's
// annotations, has it unwrapped with a key of the broker, and decrypts the
// layer's bytes while they stream by.
//
// It uses github.com/containers/ocicrypt's packages blockcipher and spec, which
// define the cipher and the media types. The library's top package stays out:
// it brings key wrappers for which there is no use here and reads their
// configuration at start-up.
package decrypt

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/ocicrypt/blockcipher"
	"github.com/containers/ocicrypt/spec"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// Keys hands out keys by name; a key broker satisfies it. The caller of
// Resource owns the bytes and wipes them.
type Keys interface {
	Resource(ctx context.Context, u resource.URI) (secret.Bytes, error)
}

// Names of annotations on an encrypted layer.
const (
	// ProviderPrefix begins the annotations that hold packets. What follows is
	// the name that the encrypting tool gave the provider and decides nothing.
	ProviderPrefix = "org.opencontainers.image.enc.keys.provider."
	PublicOptions  = "org.opencontainers.image.enc.pubopts"
)

// maxPackets bounds how often a layer may make the guest ask for a key.
const maxPackets = 8

// MediaType returns the media type below the encryption, or ok false when the
// layer is not encrypted.
func MediaType(mediaType string) (plain string, ok bool) {
	switch mediaType {
	case spec.MediaTypeLayerEnc, spec.MediaTypeLayerNonDistributableEnc:
		return v1.MediaTypeImageLayer, true
	case spec.MediaTypeLayerGzipEnc, spec.MediaTypeLayerNonDistributableGzipEnc:
		return v1.MediaTypeImageLayerGzip, true
	case spec.MediaTypeLayerZstdEnc, spec.MediaTypeLayerNonDistributableZstdEnc:
		return v1.MediaTypeImageLayerZstd, true
	}
	return mediaType, false
}

// Key opens one layer. It is used once and then wiped.
type Key struct {
	id      string // of the key that unwrapped it
	options blockcipher.LayerBlockCipherOptions
}

// KeyID names the broker's key that opened the layer.
func (k *Key) KeyID() string { return k.id }

// Wipe forgets the layer's key.
func (k *Key) Wipe() { clear(k.options.Private.SymmetricKey) }

// Unwrap returns the key of an encrypted layer. The packets are tried in order
// until one opens; the error is that of the last. Holding a layer's plaintext
// already is no reason to skip this: it is what decides whether this guest may
// use the layer for this image now.
func Unwrap(ctx context.Context, keys Keys, d v1.Descriptor) (*Key, error) {
	public, err := publicOptions(d)
	if err != nil {
		return nil, err
	}
	packets, err := packetsOf(d)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, raw := range packets {
		k, err := unwrapOne(ctx, keys, raw, public)
		if err == nil {
			return k, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failures[len(failures)-1]
}

func unwrapOne(ctx context.Context, keys Keys, raw []byte, public blockcipher.PublicLayerBlockCipherOptions) (*Key, error) {
	p, err := ParsePacket(raw)
	if err != nil {
		return nil, err
	}
	plain, err := p.unwrap(ctx, keys)
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	k := &Key{id: p.KeyID}
	k.options.Public = public
	// The decoder's error may quote what it read, so it is dropped.
	if err := json.Unmarshal(plain, &k.options.Private); err != nil {
		return nil, fmt.Errorf("key %.200q opens no layer options: %w", p.KeyID, errdefs.ErrInvalidArgument)
	}
	if err := k.check(); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

// check holds the options to the one cipher there is. The nonce must come from
// the wrapped half: the public half is covered by nothing, yet the library
// would prefer a nonce there, and one of another length stops the program.
func (k *Key) check() error {
	private, public := k.options.Private, &k.options.Public
	nonce := private.CipherOptions["nonce"]
	why := ""
	switch {
	case len(private.SymmetricKey) != keySize:
		why = "key has the wrong length"
	case len(nonce) != 16:
		why = "nonce has the wrong length"
	case public.CipherOptions["nonce"] != nil && !slices.Equal(public.CipherOptions["nonce"], nonce):
		why = "public nonce differs from the wrapped one"
	}
	if why != "" {
		return fmt.Errorf("layer options: %s: %w", why, errdefs.ErrInvalidArgument)
	}
	public.CipherOptions = nil
	return nil
}

// publicOptions reads what stands beside the packets.
func publicOptions(d v1.Descriptor) (blockcipher.PublicLayerBlockCipherOptions, error) {
	var public blockcipher.PublicLayerBlockCipherOptions
	text := d.Annotations[PublicOptions]
	if len(text) > maxPacket {
		return public, fmt.Errorf("annotation %s of %d bytes: %w", PublicOptions, len(text), errdefs.ErrInvalidArgument)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &public)
	}
	if err != nil {
		return public, fmt.Errorf("annotation %s is missing or malformed: %w", PublicOptions, errdefs.ErrInvalidArgument)
	}
	if public.CipherType != blockcipher.AES256CTR {
		return public, fmt.Errorf("layer cipher %.40q: %w", string(public.CipherType), errdefs.ErrNotImplemented)
	}
	if len(public.Hmac) != sha256.Size {
		return public, fmt.Errorf("layer has no HMAC: %w", errdefs.ErrInvalidArgument)
	}
	return public, nil
}

// packetsOf collects the packets of all providers, in the order of their names
// so that two guests try the same ones first.
func packetsOf(d v1.Descriptor) ([][]byte, error) {
	var names []string
	for name := range d.Annotations {
		if strings.HasPrefix(name, ProviderPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var packets [][]byte
	for _, name := range names {
		for text := range strings.SplitSeq(d.Annotations[name], ",") {
			if len(packets) == maxPackets {
				return nil, fmt.Errorf("layer has more than %d wrapped keys: %w", maxPackets, errdefs.ErrInvalidArgument)
			}
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, fmt.Errorf("annotation %.120s is not base64: %w", name, errdefs.ErrInvalidArgument)
			}
			packets = append(packets, raw)
		}
	}
	if len(packets) == 0 {
		return nil, fmt.Errorf("encrypted layer has no annotation %s*: %w", ProviderPrefix, errdefs.ErrInvalidArgument)
	}
	return packets, nil
}
