package kbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"runtime"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence/secret"
)

const (
	keyAlgorithm     = "ECDH-ES+A256KW"
	contentAlgorithm = "A256GCM"
	curve            = "P-256"
)

// publicKey is the key as a JWK, members in the order of their names. There
// are no others: the broker drops them before it hashes, and the evidence
// would no longer fit.
type publicKey struct {
	Algorithm string `json:"alg"`
	Curve     string `json:"crv"`
	Type      string `json:"kty"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

// teeKey is the key that resources are wrapped for. It exists in this process
// alone and for one session.
type teeKey struct {
	private *ecdsa.PrivateKey
	public  publicKey
}

// newKey makes a key that is overwritten when nobody can reach it any more: a
// session that is replaced may still be in use by another goroutine.
func newKey() (*teeKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	k, err := keyOf(private)
	if err == nil {
		runtime.AddCleanup(k, func(words []big.Word) { clear(words) }, private.D.Bits())
	}
	return k, err
}

func keyOf(k *ecdsa.PrivateKey) (*teeKey, error) {
	point, err := k.PublicKey.Bytes() // 4, then both coordinates at full length
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	size := (len(point) - 1) / 2
	enc := base64.RawURLEncoding
	return &teeKey{private: k, public: publicKey{
		Algorithm: keyAlgorithm,
		Curve:     curve,
		Type:      "EC",
		X:         enc.EncodeToString(point[1 : 1+size]),
		Y:         enc.EncodeToString(point[1+size:]),
	}}, nil
}

// envelope is a JWE in its flattened form, with the members a broker sends.
type envelope struct {
	Protected    string `json:"protected"`
	EncryptedKey string `json:"encrypted_key"`
	IV           string `json:"iv"`
	Ciphertext   string `json:"ciphertext"`
	Tag          string `json:"tag"`
}

// header is the protected part of an envelope.
type header struct {
	Algorithm   string `json:"alg"`
	Encryption  string `json:"enc"`
	Compression string `json:"zip"`
	Ephemeral   struct {
		Curve string `json:"crv"`
		Type  string `json:"kty"`
	} `json:"epk"`
}

// decrypt opens an envelope. Its algorithms have to be those that were asked
// for; the reply may choose nothing. All failures look alike.
func (k *teeKey) decrypt(body []byte) (secret.Bytes, error) {
	defer runtime.KeepAlive(k) // its cleanup must not run during the work
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: resource is no JWE", ErrReply)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	compact := strings.Join([]string{e.Protected, e.EncryptedKey, e.IV, e.Ciphertext, e.Tag}, ".")
	jwe, err := jose.ParseEncryptedCompact(compact,
		[]jose.KeyAlgorithm{keyAlgorithm}, []jose.ContentEncryption{contentAlgorithm})
	if err != nil {
		return nil, fmt.Errorf("%w: resource does not decrypt", ErrReply)
	}
	plain, err := jwe.Decrypt(k.private)
	if err != nil {
		return nil, fmt.Errorf("%w: resource does not decrypt", ErrReply)
	}
	return plain, nil
}

func (e envelope) check() error {
	text, err := base64.RawURLEncoding.DecodeString(e.Protected)
	if err != nil {
		return fmt.Errorf("%w: resource is no JWE", ErrReply)
	}
	var h header
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("%w: resource is no JWE", ErrReply)
	}
	switch {
	case h.Algorithm != keyAlgorithm || h.Encryption != contentAlgorithm:
		return fmt.Errorf("%w: resource is wrapped with another algorithm", ErrReply)
	case h.Ephemeral.Curve != curve || h.Ephemeral.Type != "EC":
		return fmt.Errorf("%w: resource is wrapped for another curve", ErrReply)
	case h.Compression != "":
		return fmt.Errorf("%w: resource is compressed", ErrReply)
	}
	return nil
}
