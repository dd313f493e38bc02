package devkbs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha3"
	"encoding/base64"
	"encoding/json"
	"fmt"

	josecipher "github.com/go-jose/go-jose/v4/cipher"
)

const akpAlgorithm = "ML-KEM-768+A192KW"

// encryptAKP makes the envelope of draft-ietf-jose-pqc-kem-05 for a key that is
// encapsulated with ML-KEM-768.
func encryptAKP(public *mlkem.EncapsulationKey768, plain []byte) ([]byte, error) {
	shared, encapsulated := public.Encapsulate()
	wrapping, err := aes.NewCipher(akpWrappingKey(shared))
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	var random [32 + 12]byte
	_, _ = rand.Read(random[:]) // never fails
	content, iv := random[:32], random[32:]
	wrapped, err := josecipher.KeyWrap(wrapping, content)
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("encrypt resource: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString
	protected := text(fmt.Appendf(nil, `{"alg":%q,"enc":"A256GCM","ek":%q}`, akpAlgorithm, text(encapsulated)))
	sealed := gcm.Seal(nil, iv, plain, []byte(protected))
	cut := len(sealed) - gcm.Overhead()
	return json.Marshal(map[string]string{
		"protected": protected, "encrypted_key": text(wrapped), "iv": text(iv),
		"ciphertext": text(sealed[:cut]), "tag": text(sealed[cut:]),
	})
}

// akpWrappingKey is KMAC256 over what the key is for, with the lengths of this
// one use written out: a rate of 136 bytes, a secret of 256 bits and a result of
// 192 bits.
func akpWrappingKey(shared []byte) []byte {
	block := make([]byte, 136)
	copy(block, "\x01\x88\x02\x01\x00")
	copy(block[5:], shared)
	h := sha3.NewCSHAKE256([]byte("KMAC"), nil)
	_, _ = h.Write(block)
	_, _ = h.Write([]byte("\x00\x00\x00\x11" + akpAlgorithm + "\x00\x00\x00\xc0" + "\xc0\x01"))
	key := make([]byte, 24)
	_, _ = h.Read(key)
	return key
}
