package kbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"runtime"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// publicKey is the key as a JWK, members in the order of their names. There
// are no others: the broker drops them before it hashes, and the evidence
// would no longer fit.
type publicKey struct {
	Algorithm string `json:"alg"`
	Curve     string `json:"crv,omitempty"`
	Exponent  string `json:"e,omitempty"`
	Type      string `json:"kty"`
	Modulus   string `json:"n,omitempty"`
	Public    string `json:"pub,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

// teeKey is the key that resources are wrapped for. It exists in this process
// alone and for one session.
type teeKey struct {
	public publicKey
	unwrap unwrapper
}

// An unwrapper opens an envelope whose header names the algorithm of the key.
type unwrapper func(envelope, header) (secret.Bytes, error)

const (
	algECDH = "ECDH-ES+A256KW"
	algRSA  = "RSA-OAEP-256"
	algAKP  = "ML-KEM-768+A192KW"

	// DefaultKeyAlgorithm is used when the configuration names none.
	DefaultKeyAlgorithm = algECDH + "-P256"

	rsaBits = 2048 // what the reference guest makes
)

// keyMakers are the algorithms by the names that tee_key_algorithm takes.
func keyMaker(name string) (func() (*teeKey, error), error) {
	switch name {
	case "", DefaultKeyAlgorithm:
		return func() (*teeKey, error) { return newECKey(elliptic.P256()) }, nil
	case algECDH + "-P521":
		return func() (*teeKey, error) { return newECKey(elliptic.P521()) }, nil
	case algRSA:
		return newRSAKey, nil
	case algAKP:
		return newAKPKey, nil
	}
	return nil, fmt.Errorf("kbs: tee_key_algorithm is none of %s, %s-P521, %s, %s: %w",
		DefaultKeyAlgorithm, algECDH, algRSA, algAKP, errdefs.ErrInvalidArgument)
}

// newECKey makes a key that is overwritten when nobody can reach it any more: a
// session that is replaced may still be in use by another goroutine. So it is
// with keys of the other kinds.
func newECKey(c elliptic.Curve) (*teeKey, error) {
	private, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return ecKey(private)
}

func ecKey(private *ecdsa.PrivateKey) (*teeKey, error) {
	point, err := private.PublicKey.Bytes() // 4, then both coordinates at full length
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	size := (len(point) - 1) / 2
	k := &teeKey{
		public: publicKey{
			Algorithm: algECDH, Type: "EC", Curve: private.Curve.Params().Name,
			X: encode64(point[1 : 1+size]), Y: encode64(point[1+size:]),
		},
		unwrap: joseUnwrapper(algECDH, private),
	}
	runtime.AddCleanup(k, wipeWords, private.D.Bits())
	return k, nil
}

func newRSAKey() (*teeKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return rsaKey(private), nil
}

func rsaKey(private *rsa.PrivateKey) *teeKey {
	k := &teeKey{
		public: publicKey{
			Algorithm: algRSA, Type: "RSA",
			Modulus: encode64(private.N.Bytes()), Exponent: encode64(big.NewInt(int64(private.E)).Bytes()),
		},
		unwrap: joseUnwrapper(algRSA, private),
	}
	for _, secret := range append([]*big.Int{private.D}, private.Primes...) {
		runtime.AddCleanup(k, wipeWords, secret.Bits())
	}
	return k
}

// newAKPKey makes a key that a quantum computer cannot compute from the public
// one. The library keeps its seed to itself, so it cannot be overwritten.
func newAKPKey() (*teeKey, error) {
	private, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return akpKey(private), nil
}

func akpKey(private *mlkem.DecapsulationKey768) *teeKey {
	return &teeKey{
		public: publicKey{Algorithm: algAKP, Type: "AKP", Public: encode64(private.EncapsulationKey().Bytes())},
		unwrap: akpUnwrapper(private),
	}
}

func wipeWords(words []big.Word) { clear(words) }

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
