package evidencetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"testing"
)

// CCA is a platform of Arm and the monitor of a realm on it, which make tokens
// and sign them. Set the fields before its first use. It is not safe for
// concurrent use.
type CCA struct {
	Personalization [64]byte
	Initial         [32]byte // measurement
	// Edit may change the token, after it was signed.
	Edit func([]byte) []byte
	// Fault is what the platform answers instead of a token.
	Fault error

	platform *ecdsa.PrivateKey
	realm    *ecdsa.PrivateKey
}

// NewCCA is a platform and a realm with fresh keys.
func NewCCA(t testing.TB) *CCA {
	t.Helper()
	platform, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	realm, rerr := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	return &CCA{platform: platform, realm: realm}
}

// Keys are the public keys of platform and realm.
func (c *CCA) Keys() (platform, realm *ecdsa.PublicKey) {
	return &c.platform.PublicKey, &c.realm.PublicKey
}

// Sign fits TSM. The platform's statement holds the hash of the realm's key,
// and the realm's holds what was asked to be signed.
func (c *CCA) Sign(in [64]byte) (out, aux []byte, err error) {
	if c.Fault != nil {
		return nil, nil, c.Fault
	}
	key, err := c.realm.PublicKey.Bytes()
	if err != nil {
		return nil, nil, err
	}
	keyHash := sha512.Sum512(key)
	instance := append([]byte{1}, make([]byte, 32)...)
	platform, err := sign1(c.platform, cborMap(
		265, cborText("http://arm.com/CCA-SSD/1.0.0"), 10, cborBytes(keyHash[:]), 2396, cborBytes(make([]byte, 32)),
		256, cborBytes(instance), 2401, cborBytes([]byte{1}), 2395, cborHead(0, 0x3003), 2402, cborText("sha-256"),
		2399, append(cborHead(4, 1), cborMap(2, cborBytes(make([]byte, 32)), 5, cborBytes(make([]byte, 32)))...),
	))
	if err != nil {
		return nil, nil, err
	}
	registers := cborHead(4, 4)
	for range 4 {
		registers = append(registers, cborBytes(make([]byte, 32))...)
	}
	realm, err := sign1(c.realm, cborMap(
		10, cborBytes(in[:]), 44235, cborBytes(c.Personalization[:]), 44237, cborBytes(key), 44236, cborText("sha-256"),
		44240, cborText("sha-512"), 44238, cborBytes(c.Initial[:]), 44239, registers,
	))
	if err != nil {
		return nil, nil, err
	}
	token := append(cborHead(6, 399), cborMap(44234, cborBytes(platform), 44241, cborBytes(realm))...)
	if c.Edit != nil {
		token = c.Edit(token)
	}
	return token, nil, nil
}

// protected is the header of both statements: ES384.
var protected = []byte{0xa1, 0x01, 0x38, 0x22}

// coseDigest is what COSE_Sign1 signs (RFC 9052 section 4.4).
func coseDigest(payload []byte) []byte {
	b := append(cborHead(4, 4), cborText("Signature1")...)
	for _, part := range [][]byte{protected, nil, payload} {
		b = append(b, cborBytes(part)...)
	}
	sum := sha512.Sum384(b)
	return sum[:]
}

func sign1(key *ecdsa.PrivateKey, payload []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, coseDigest(payload))
	if err != nil {
		return nil, err
	}
	b := append(cborHead(6, 18), cborHead(4, 4)...)
	b = append(append(b, cborBytes(protected)...), cborMap()...)
	signature := append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...)
	return append(append(b, cborBytes(payload)...), cborBytes(signature)...), nil
}

// VerifySign1 checks the signature of a statement that ends in it.
func VerifySign1(key *ecdsa.PublicKey, payload, signature []byte) error {
	if len(signature) != 96 {
		return fmt.Errorf("signature has %d bytes", len(signature))
	}
	r, s := new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])
	if !ecdsa.Verify(key, coseDigest(payload), r, s) {
		return errors.New("signature does not fit")
	}
	return nil
}

// cborHead starts an item of CBOR in the shortest form.
func cborHead(major byte, n uint64) []byte {
	wide := binary.BigEndian.AppendUint64(nil, n)
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return append([]byte{major<<5 | 24}, wide[7:]...)
	case n < 1<<16:
		return append([]byte{major<<5 | 25}, wide[6:]...)
	}
	return append([]byte{major<<5 | 27}, wide...)
}

func cborBytes(b []byte) []byte { return append(cborHead(2, uint64(len(b))), b...) }

func cborText(s string) []byte { return append(cborHead(3, uint64(len(s))), s...) }

// cborMap takes keys, which are numbers, and values in turn.
func cborMap(pairs ...any) []byte {
	b := cborHead(5, uint64(len(pairs)/2))
	for i := 0; i < len(pairs); i += 2 {
		b = append(append(b, cborHead(0, uint64(pairs[i].(int)))...), pairs[i+1].([]byte)...)
	}
	return b
}
