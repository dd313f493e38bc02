package kbs

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rsa"
	"crypto/sha512"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"github.com/coffer-cc/coffer/evidence"
)

const fuzzed = "a resource"

// constantRSA is the same key in every process of a fuzzer.
func constantRSA() *rsa.PrivateKey {
	prime := func(seed byte) *big.Int {
		sum := sha512.Sum512([]byte{seed})
		p := new(big.Int).SetBytes(bytes.Repeat(sum[:], 2))
		p.SetBit(p, 1023, 1).SetBit(p, 1022, 1).SetBit(p, 0, 1)
		for two := big.NewInt(2); !p.ProbablyPrime(0); {
			p.Add(p, two)
		}
		return p
	}
	p, q, e, one := prime(1), prime(2), big.NewInt(65537), big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: new(big.Int).ModInverse(e, phi), Primes: []*big.Int{p, q},
	}
	key.Precompute()
	return key
}

// constantKeys are one of each kind, with what encrypts for it.
func constantKeys(f *testing.F) map[*teeKey][]byte {
	f.Helper()
	seal := func(alg jose.KeyAlgorithm, public any) []byte {
		enc, err := jose.NewEncrypter(contentAlgorithm, jose.Recipient{Algorithm: alg, Key: public}, nil)
		if err != nil {
			f.Fatal(err)
		}
		jwe, err := enc.Encrypt([]byte(fuzzed))
		if err != nil {
			f.Fatal(err)
		}
		return []byte(jwe.FullSerialize())
	}
	keys := map[*teeKey][]byte{}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P521()} {
		private, err := ecdsa.ParseRawPrivateKey(curve, append(make([]byte, (curve.Params().BitSize+7)/8-1), 7))
		if err != nil {
			f.Fatal(err)
		}
		k, err := ecKey(private)
		if err != nil {
			f.Fatal(err)
		}
		keys[k] = seal(algECDH, &private.PublicKey)
	}
	private := constantRSA()
	keys[rsaKey(private)] = seal(algRSA, &private.PublicKey)
	kem, err := mlkem.NewDecapsulationKey768(make([]byte, mlkem.SeedSize))
	if err != nil {
		f.Fatal(err)
	}
	keys[akpKey(kem)] = sealAKP(f, kem.EncapsulationKey())
	return keys
}

// sealAKP is akpUnwrapper backwards.
func sealAKP(f *testing.F, public *mlkem.EncapsulationKey768) []byte {
	f.Helper()
	shared, encapsulated := public.Encapsulate()
	wrapping, err := aes.NewCipher(kmac256(shared, wrapInfo(algAKP, 192), 24))
	if err != nil {
		f.Fatal(err)
	}
	content := make([]byte, 32)
	wrapped, err := josecipher.KeyWrap(wrapping, content)
	if err != nil {
		f.Fatal(err)
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		f.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		f.Fatal(err)
	}
	iv, protected := make([]byte, 12), encode64(fmt.Appendf(nil, `{"alg":%q,"enc":"A256GCM","ek":%q}`, algAKP, encode64(encapsulated)))
	sealed := gcm.Seal(nil, iv, []byte(fuzzed), []byte(protected))
	return encode(f, envelope{
		Protected: protected, EncryptedKey: encode64(wrapped), IV: encode64(iv),
		Ciphertext: encode64(sealed[:len(fuzzed)]), Tag: encode64(sealed[len(fuzzed):]),
	})
}

// FuzzReplies reads a reply as each of those that a broker sends. Whoever knows
// a public key can seal anything, but the fuzzer does no cryptography, so an
// envelope that decrypts holds what was sealed.
func FuzzReplies(f *testing.F) {
	keys := constantKeys(f)
	for k, envelope := range keys {
		if plain, err := k.decrypt(envelope); err != nil || string(plain) != fuzzed {
			f.Fatalf("seed for %s: %v", k.public.Algorithm, err)
		}
		f.Add(envelope)
		f.Add(bytes.Replace(envelope, []byte(`"tag":"`), []byte(`"tag":"A`), 1))
		f.Add(bytes.Replace(envelope, []byte(`"encrypted_key":"`), []byte(`"encrypted_key":"A`), 1))
	}
	f.Add([]byte(`{"nonce":"AAAA","extra-params":{"selected-hash-algorithm":"sha512"}}`))
	f.Add([]byte(`{"nonce":"AAAA","extra-params":""}`))
	f.Add(token(`{"iss":"coffer-devkbs","iat":1,"exp":61}`))
	f.Add(token(`{"iss":"CoCo-Attestation-Service","iat":1000,"exp":1300}`))
	for _, kind := range []string{
		"PolicyDeny", "PluginInternalError", "PluginNotFound", "TokenNotFound", "TokenVerifierError", "AttestationError", "JweError",
		"InvalidRequestPath", "PolicyEngineError", "ParsePolicyError", "SerdeError", "",
	} {
		f.Add(fmt.Appendf(nil, `{"type":%q,"detail":""}`, errorPrefix+kind))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for k := range keys {
			if ch, err := parseChallenge(body, evidence.Sample); err == nil {
				if d, err := bind(ch, boundData{Nonce: ch.Nonce, Key: k.public}); err == nil && len(d) < 32 {
					t.Fatalf("digest of %d bytes", len(d))
				}
			}
			if plain, err := k.decrypt(body); err == nil && string(plain) != fuzzed {
				t.Fatalf("a forged envelope decrypts for %s", k.public.Algorithm)
			}
		}
		if _, life, err := judgeToken(body, evidence.TDX); err == nil && life < 0 {
			t.Fatalf("lifetime %v", life)
		}
		if text := refusal(401, body).Error(); strings.ContainsAny(text, "\n\r\x1b") {
			t.Fatalf("refusal repeats the broker: %q", text)
		}
	})
}
