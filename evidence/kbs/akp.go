package kbs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/mlkem"
	"crypto/sha3"
	"encoding/base64"
	"encoding/binary"
	"math/bits"

	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// akpUnwrapper opens envelopes of draft-ietf-jose-pqc-kem-05, which the library
// does not know yet. The shared secret of the encapsulation yields a key, that
// unwraps the content's key, and that opens the content:
//
//	ek ─ML-KEM-768▸ shared ─KMAC256▸ 24 bytes ─AES key wrap▸ 32 bytes ─AES-GCM▸ resource
//
// The draft leaves the input of the derivation open; this is what Trustee takes.
func akpUnwrapper(private *mlkem.DecapsulationKey768) unwrapper {
	return func(e envelope, h header) (secret.Bytes, error) {
		var parts [5][]byte
		for i, text := range []string{h.Encapsulated, e.EncryptedKey, e.IV, e.Ciphertext, e.Tag} {
			b, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				return nil, errSealed()
			}
			parts[i] = b
		}
		shared, err := private.Decapsulate(parts[0])
		if err != nil {
			return nil, errSealed()
		}
		defer clear(shared)
		wrapping := kmac256(shared, wrapInfo(algAKP, 192), 24)
		defer clear(wrapping)
		block, err := aes.NewCipher(wrapping)
		if err != nil {
			return nil, errSealed()
		}
		content, err := josecipher.KeyUnwrap(block, parts[1])
		if err != nil {
			return nil, errSealed()
		}
		defer clear(content)
		return openGCM(content, parts[2], append(parts[3], parts[4]...), e)
	}
}

// openGCM decrypts a content with its tag behind it.
func openGCM(key, iv, sealed []byte, e envelope) (secret.Bytes, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return nil, errSealed()
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil || len(iv) != gcm.NonceSize() || len(sealed) < gcm.Overhead() {
		return nil, errSealed()
	}
	plain, err := gcm.Open(nil, iv, sealed, []byte(e.Protected))
	if err != nil {
		return nil, errSealed()
	}
	return plain, nil
}

// wrapInfo says what a derived key is for: the algorithm and its size in bits.
func wrapInfo(alg string, size uint32) []byte {
	info := binary.BigEndian.AppendUint32(nil, uint32(len(alg)))
	info = append(info, alg...)
	return binary.BigEndian.AppendUint32(info, size)
}

// kmac256 is KMAC256 of NIST SP 800-185 without a customisation. The library
// has the sponge beneath it.
func kmac256(key, data []byte, size int) []byte {
	const rate = 136
	h := sha3.NewCSHAKE256([]byte("KMAC"), nil)
	padded := append(leftEncode(rate), leftEncode(uint64(len(key))*8)...)
	padded = append(padded, key...)
	padded = append(padded, make([]byte, (rate-len(padded)%rate)%rate)...)
	defer clear(padded)
	_, _ = h.Write(padded)
	_, _ = h.Write(data)
	_, _ = h.Write(rightEncode(uint64(size) * 8))
	out := make([]byte, size)
	_, _ = h.Read(out)
	return out
}

// leftEncode is a number in its shortest form behind its length.
func leftEncode(n uint64) []byte {
	short := shortest64(n)
	return append([]byte{byte(len(short))}, short...)
}

// rightEncode is a number in its shortest form in front of its length.
func rightEncode(n uint64) []byte {
	short := shortest64(n)
	return append(short, byte(len(short)))
}

func shortest64(n uint64) []byte {
	size := max(1, (bits.Len64(n)+7)/8)
	return binary.BigEndian.AppendUint64(nil, n)[8-size:]
}
