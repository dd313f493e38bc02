package kbs

import (
	"encoding/base64"
	"encoding/json"
	"runtime"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/secret"
)

const contentAlgorithm = "A256GCM"

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
	Algorithm   string          `json:"alg"`
	Encryption  string          `json:"enc"`
	Compression string          `json:"zip"`
	Critical    json.RawMessage `json:"crit"`
	Ephemeral   struct {
		Curve string `json:"crv"`
		Type  string `json:"kty"`
	} `json:"epk"`
	Encapsulated string `json:"ek"`
}

// errSealed is the same for all failures to decrypt.
func errSealed() error { return malformed(evidence.ResourceWrap, "resource does not decrypt") }

// decrypt opens an envelope. Its algorithms have to be those that were asked
// for; the reply may choose nothing. All failures to decrypt look alike.
func (k *teeKey) decrypt(body []byte) (secret.Bytes, error) {
	defer runtime.KeepAlive(k) // its cleanup must not run during the work
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, malformed(evidence.ResourceMalformed, "resource is no JWE")
	}
	h, err := e.header()
	if err != nil {
		return nil, err
	}
	switch {
	case h.Algorithm != k.public.Algorithm || h.Encryption != contentAlgorithm:
		return nil, malformed(evidence.ResourceWrap, "resource is wrapped with another algorithm")
	case k.public.Type == "EC" && (h.Ephemeral.Curve != k.public.Curve || h.Ephemeral.Type != "EC"):
		return nil, malformed(evidence.ResourceWrap, "resource is wrapped for another curve")
	case h.Compression != "" || h.Critical != nil:
		return nil, malformed(evidence.ResourceMalformed, "resource is compressed or extended")
	}
	return k.unwrap(e, h)
}

func (e envelope) header() (h header, err error) {
	text, err := base64.RawURLEncoding.DecodeString(e.Protected)
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return h, malformed(evidence.ResourceMalformed, "resource is no JWE")
	}
	return h, nil
}

// joseUnwrapper leaves everything to the library.
func joseUnwrapper(alg jose.KeyAlgorithm, private any) unwrapper {
	return func(e envelope, _ header) (secret.Bytes, error) {
		compact := strings.Join([]string{e.Protected, e.EncryptedKey, e.IV, e.Ciphertext, e.Tag}, ".")
		jwe, err := jose.ParseEncryptedCompact(compact,
			[]jose.KeyAlgorithm{alg}, []jose.ContentEncryption{contentAlgorithm})
		if err != nil {
			return nil, errSealed()
		}
		plain, err := jwe.Decrypt(private)
		if err != nil {
			return nil, errSealed()
		}
		return plain, nil
	}
}
