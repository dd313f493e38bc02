package decrypt

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// Packet is what an annotation of an encrypted layer holds for each key that
// opens it: the layer's own key, wrapped. Its JSON is the format of the
// Confidential Containers key provider. Version 1 has no member version.
//
//	{"kid":"kbs:///…", "wrapped_data":base64, "iv":base64, "wrap_type":"A256GCM"}
//	version 2 adds "version":"0.1.0", "provider", "provider_settings", "annotations"
type Packet struct {
	Version  string `json:"version,omitempty"`
	KeyID    string `json:"kid"`
	Wrapped  []byte `json:"wrapped_data"`
	IV       []byte `json:"iv,omitempty"`
	WrapType string `json:"wrap_type,omitempty"`
	Provider string `json:"provider,omitempty"`
	// Settings and Annotations are for providers other than the key broker.
	Settings    json.RawMessage `json:"provider_settings,omitempty"`
	Annotations json.RawMessage `json:"annotations,omitempty"`
}

// The wrap types: AES-256 in GCM with the tag behind the ciphertext and no
// additional data, or in CTR with no authentication at all.
const (
	GCM = "A256GCM"
	CTR = "A256CTR"

	// PacketVersion is what version 2 of the format calls itself.
	PacketVersion = "0.1.0"
	brokerName    = "kbs"

	keySize    = 32
	maxPacket  = 64 << 10
	maxWrapped = 16 << 10
)

// ParsePacket reads one packet. It is hostile input: an image's author writes
// it, and nothing of it is secret.
func ParsePacket(raw []byte) (*Packet, error) {
	bad := func(why string) (*Packet, error) {
		return nil, fmt.Errorf("annotation packet %s: %w", why, errdefs.ErrInvalidArgument)
	}
	if len(raw) > maxPacket {
		return bad("is too long")
	}
	p := &Packet{}
	if err := json.Unmarshal(raw, p); err != nil {
		return bad("is malformed")
	}
	switch {
	case p.Version != "" && p.Version != PacketVersion:
		return nil, fmt.Errorf("annotation packet of version %.20q: %w", p.Version, errdefs.ErrNotImplemented)
	case p.Provider != "" && p.Provider != brokerName:
		return nil, fmt.Errorf("annotation packet of key provider %.40q: %w", p.Provider, errdefs.ErrNotImplemented)
	case p.WrapType != GCM && p.WrapType != CTR:
		return nil, fmt.Errorf("annotation packet of wrap type %.20q: %w", p.WrapType, errdefs.ErrNotImplemented)
	case len(p.Wrapped) == 0 || len(p.Wrapped) > maxWrapped:
		return bad("has no wrapped key of a possible length")
	case p.WrapType == GCM && len(p.IV) != 12, p.WrapType == CTR && len(p.IV) != aes.BlockSize:
		return bad("has an iv of the wrong length")
	}
	return p, nil
}

// unwrap fetches the key that p names and opens p with it.
func (p *Packet) unwrap(ctx context.Context, keys Keys) (secret.Bytes, error) {
	id, err := resource.Parse(p.KeyID)
	if err != nil {
		return nil, fmt.Errorf("key id %.200q: %w", p.KeyID, err)
	}
	kek, err := keys.Resource(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("get key %s: %w", id, err)
	}
	defer kek.Wipe()
	if len(kek) != keySize {
		return nil, fmt.Errorf("key %s has %d bytes, not %d: %w", id, len(kek), keySize, errdefs.ErrInvalidArgument)
	}
	plain, err := p.open(kek)
	if err != nil {
		return nil, fmt.Errorf("unwrap layer key with %s: %w", id, err)
	}
	return plain, nil
}

func (p *Packet) open(kek secret.Bytes) (secret.Bytes, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if p.WrapType == CTR {
		plain := make(secret.Bytes, len(p.Wrapped))
		cipher.NewCTR(block, p.IV).XORKeyStream(plain, p.Wrapped)
		return plain, nil
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, p.IV, p.Wrapped, nil)
	if err != nil {
		return nil, fmt.Errorf("it was wrapped with another key: %w", errdefs.ErrPermissionDenied)
	}
	return plain, nil
}

// Seal wraps plain into p, whose IV and WrapType are set. It is the other
// direction of the same format, for the tools that make images.
func (p *Packet) Seal(kek, plain secret.Bytes) error {
	if len(kek) != keySize {
		return fmt.Errorf("key of %d bytes, not %d: %w", len(kek), keySize, errdefs.ErrInvalidArgument)
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return err
	}
	switch {
	case p.WrapType == GCM && len(p.IV) == 12:
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return err
		}
		p.Wrapped = aead.Seal(nil, p.IV, plain, nil)
	case p.WrapType == CTR && len(p.IV) == aes.BlockSize:
		p.Wrapped = make([]byte, len(plain))
		cipher.NewCTR(block, p.IV).XORKeyStream(p.Wrapped, plain)
	default:
		return fmt.Errorf("wrap type %.20q with an iv of %d bytes: %w", p.WrapType, len(p.IV), errdefs.ErrInvalidArgument)
	}
	return nil
}

// Encode returns the packet as it stands in an annotation.
func (p *Packet) Encode() (string, error) {
	raw, err := json.Marshal(p)
	return base64.StdEncoding.EncodeToString(raw), err
}
