package devkbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// guestKey is the key of a guest: members are what is hashed and what goes
// into the token, unknown ones dropped.
type guestKey struct {
	members map[string]string
	public  *ecdsa.PublicKey
}

// parseKey reads a JWK of the one kind that is supported. Coordinates have to
// be of full length.
func parseKey(raw json.RawMessage) (*guestKey, error) {
	var jwk struct{ Kty, Crv, Alg, X, Y string }
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return nil, errors.New("tee-pubkey is malformed")
	}
	if jwk.Kty != "EC" || jwk.Crv != "P-256" || jwk.Alg != "ECDH-ES+A256KW" {
		return nil, errors.New("tee-pubkey is not EC P-256 for ECDH-ES+A256KW")
	}
	point := []byte{4}
	for _, coordinate := range []string{jwk.X, jwk.Y} {
		b, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil || len(b) != 32 {
			return nil, errors.New("tee-pubkey has a coordinate of another length")
		}
		point = append(point, b...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, errors.New("tee-pubkey is not on the curve")
	}
	return &guestKey{public: public, members: map[string]string{
		"kty": jwk.Kty, "crv": jwk.Crv, "alg": jwk.Alg, "x": jwk.X, "y": jwk.Y,
	}}, nil
}

// encrypt returns the JSON form of a JWE that only the guest can open.
func (k *guestKey) encrypt(plain []byte) ([]byte, error) {
	enc, err := jose.NewEncrypter(jose.A256GCM,
		jose.Recipient{Algorithm: jose.ECDH_ES_A256KW, Key: k.public}, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	jwe, err := enc.Encrypt(plain)
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	return []byte(jwe.FullSerialize()), nil
}
