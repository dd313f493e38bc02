package devkbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-jose/go-jose/v4"
)

// guestKey is the key of a guest: members are what is hashed and what goes
// into the token, unknown ones dropped.
type guestKey struct {
	members map[string]string
	// encrypt returns the JSON form of a JWE that only the guest can open.
	encrypt func(plain []byte) ([]byte, error)
}

// jwk has the members of all the kinds of key. Names are those of RFC 7518 and
// of the draft for AKP.
type jwk struct{ Kty, Crv, Alg, X, Y, N, E, Pub string }

// parseKey reads a JWK of one of the kinds that Trustee knows.
func parseKey(raw json.RawMessage) (*guestKey, error) {
	var k jwk
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, errors.New("tee-pubkey is malformed")
	}
	switch {
	case k.Kty == "EC" && k.Alg == "ECDH-ES+A256KW" && k.Crv == "P-256":
		return k.ec(elliptic.P256())
	case k.Kty == "EC" && k.Alg == "ECDH-ES+A256KW" && k.Crv == "P-521":
		return k.ec(elliptic.P521())
	case k.Kty == "RSA" && k.Alg == "RSA-OAEP-256":
		return k.rsa()
	case k.Kty == "AKP" && k.Alg == akpAlgorithm:
		return k.akp()
	}
	return nil, fmt.Errorf("tee-pubkey is of no kind that is known here: %.20q for %.30q", k.Kty, k.Alg)
}

// ec takes coordinates of full length only.
func (k jwk) ec(curve elliptic.Curve) (*guestKey, error) {
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4}
	for _, coordinate := range []string{k.X, k.Y} {
		b, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil || len(b) != size {
			return nil, errors.New("tee-pubkey has a coordinate of another length")
		}
		point = append(point, b...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("tee-pubkey is not on the curve")
	}
	return &guestKey{
		members: map[string]string{"kty": k.Kty, "crv": k.Crv, "alg": k.Alg, "x": k.X, "y": k.Y},
		encrypt: joseEncrypter(jose.ECDH_ES_A256KW, public),
	}, nil
}

func (k jwk) rsa() (*guestKey, error) {
	n, err1 := base64.RawURLEncoding.DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.DecodeString(k.E)
	if err1 != nil || err2 != nil || len(n) < 256 || len(n) > 512 || len(e) == 0 || len(e) > 4 {
		return nil, errors.New("tee-pubkey is no RSA key of 2048 to 4096 bits")
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	return &guestKey{
		members: map[string]string{"kty": k.Kty, "alg": k.Alg, "n": k.N, "e": k.E},
		encrypt: joseEncrypter(jose.RSA_OAEP_256, public),
	}, nil
}

func (k jwk) akp() (*guestKey, error) {
	raw, err := base64.RawURLEncoding.DecodeString(k.Pub)
	if err != nil {
		return nil, errors.New("tee-pubkey is malformed")
	}
	public, err := mlkem.NewEncapsulationKey768(raw)
	if err != nil {
		return nil, errors.New("tee-pubkey is no ML-KEM-768 key")
	}
	return &guestKey{
		members: map[string]string{"kty": k.Kty, "alg": k.Alg, "pub": k.Pub},
		encrypt: func(plain []byte) ([]byte, error) { return encryptAKP(public, plain) },
	}, nil
}

func joseEncrypter(alg jose.KeyAlgorithm, public any) func([]byte) ([]byte, error) {
	return func(plain []byte) ([]byte, error) {
		enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: alg, Key: public}, nil)
		if err != nil {
			return nil, fmt.Errorf("encrypt resource: %w", err)
		}
		jwe, err := enc.Encrypt(plain)
		if err != nil {
			return nil, fmt.Errorf("encrypt resource: %w", err)
		}
		return []byte(jwe.FullSerialize()), nil
	}
}
