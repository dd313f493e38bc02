package kbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// rfc7517 is the example key of that document.
var rfc7517 = publicKey{
	Algorithm: algECDH, Curve: "P-256", Type: "EC",
	X: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
	Y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}

// The expected digests are those that Trustee computes for the same data.
func TestBindVectors(t *testing.T) {
	nonce := base64.StdEncoding.EncodeToString(make([]byte, 32))
	tests := []struct {
		name string
		data any
		want string
	}{
		{"any object", map[string]any{"b": 1, "a": "test", "c": map[string]any{"d": "e"}},
			"e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3"},
		{"device", runtimeData{Nonce: nonce, Key: rfc7517},
			"19a630d21977b83b1c45bff1aa391bd83375a9e24f11c6915fba17d41519e1aa78bece9d15bb779a5a68c86d7bc3e483"},
		{"primary", boundData{Nonce: nonce, Key: rfc7517},
			"d4bd1841ef158d7c3904848b81d834cafb2fb888d896151632a2aa5e8c258da20f8ba11735fc30d095f10ed26e055e09"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, extra := range []string{`""`, `{}`, `{"selected-hash-algorithm":"SHA384"}`, ""} {
				got, err := bind(challenge{ExtraParams: json.RawMessage(extra)}, tt.data)
				if err != nil || hex.EncodeToString(got) != tt.want {
					t.Errorf("bind with %q = %x, %v, want %s", extra, got, err, tt.want)
				}
			}
		})
	}
}

// TestBindAlgorithms has the digests of another implementation of SHA-2 and of
// canonical JSON, with and without devices. The SHA-384 ones over nonce and key
// alone are Trustee's as well.
func TestBindAlgorithms(t *testing.T) {
	nonce := base64.StdEncoding.EncodeToString(make([]byte, 32))
	const devices = `{"sampledevice":{"report_data":"AA==","svn":"2"}}`
	for _, tt := range []struct {
		name            string
		data            any
		algorithm, want string
	}{
		{"device, sha256", runtimeData{Nonce: nonce, Key: rfc7517}, "sha256",
			"087c7575820aba6dfcf342de605b895003ffeb7781526f1f9f0646e2771f7a2f"},
		{"device, sha384", runtimeData{Nonce: nonce, Key: rfc7517}, "sha384",
			"19a630d21977b83b1c45bff1aa391bd83375a9e24f11c6915fba17d41519e1aa78bece9d15bb779a5a68c86d7bc3e483"},
		{"device, sha512", runtimeData{Nonce: nonce, Key: rfc7517}, "sha512",
			"03ffd44947953a55bff996edf2c548b7b3537365f12b57cfa9e69566ae8f14eaa3466cc24c14501bad67e0b3e30984970bc02284a26319091575139eea96f21b"},
		{"primary, no device, sha256", boundData{Nonce: nonce, Key: rfc7517}, "sha256",
			"372ef8cab5c4d00ada11399e6e22a1c4209236dcecf9119d87512e7c9b6d409c"},
		{"primary, no device, sha384", boundData{Nonce: nonce, Key: rfc7517}, "sha384",
			"d4bd1841ef158d7c3904848b81d834cafb2fb888d896151632a2aa5e8c258da20f8ba11735fc30d095f10ed26e055e09"},
		{"primary, no device, sha512", boundData{Nonce: nonce, Key: rfc7517}, "sha512",
			"1c06da673f3520e77d472981cee1383b0b829831f9330dcb9b3fc1babb08555a5942c838cb426df92d2c6b6247b17fa950b7de09738e0bf94201456b3fc1e9e6"},
		{"primary over devices, sha256", boundData{AdditionalEvidence: devices, Nonce: nonce, Key: rfc7517}, "sha256",
			"524105337faa722f4532681564d8d45142cfdcdf955481ab4cb263b7f6a8944e"},
		{"primary over devices, sha384", boundData{AdditionalEvidence: devices, Nonce: nonce, Key: rfc7517}, "sha384",
			"d1301730321f748c25445f55003cd0a2deca85558f38114e62db69dbd70ff2c73ade26586dedd2dba9e55134e7183638"},
		{"primary over devices, sha512", boundData{AdditionalEvidence: devices, Nonce: nonce, Key: rfc7517}, "sha512",
			"1c05fae8d91804082d20ad0c4fa9796d23e499c3cc69591f394aeb190f5927eeeef441d98eed58db0e2475b73e71c91a469ecf219deeaae310d359b69b9eb6a7"},
	} {
		selected := challenge{ExtraParams: json.RawMessage(fmt.Sprintf(`{"selected-hash-algorithm":%q}`, tt.algorithm))}
		fallback := challenge{ExtraParams: json.RawMessage(`""`), unselected: tt.algorithm}
		for _, ch := range []challenge{selected, fallback} {
			if got, err := bind(ch, tt.data); err != nil || hex.EncodeToString(got) != tt.want {
				t.Errorf("%s: %x, %v, want %s", tt.name, got, err, tt.want)
			}
		}
	}
}

func TestBindSelection(t *testing.T) {
	tests := []struct {
		extra string
		size  int // 0 for a reply to be refused
	}{
		{`{"selected-hash-algorithm":"sha512"}`, 64},
		{`{"selected-hash-algorithm":"sha256"}`, 32},
		{`{"selected-hash-algorithm":"sm3"}`, 0},
		{`{"selected-hash-algorithm":7}`, 0},
		{`{"selected-hash-algorithm":""}`, 0},
		{`null`, 48},
	}
	if _, err := bind(challenge{ExtraParams: json.RawMessage(`{"selected-hash-algorithm":"SM3"}`)}, 1); err == nil || !strings.Contains(err.Error(), "sm3") {
		t.Errorf("sm3 is not refused by name: %v", err)
	}
	for _, tt := range tests {
		got, err := bind(challenge{ExtraParams: json.RawMessage(tt.extra)}, 1)
		if len(got) != tt.size || (tt.size == 0) != errors.Is(err, ErrReply) {
			t.Errorf("bind with %s = %d bytes, %v, want %d", tt.extra, len(got), err, tt.size)
		}
	}
}

// jweVector was made with another library from the description of the
// protocol; the second has coordinates that begin with a zero byte.
type jweVector struct {
	D, X, Y   string
	Plaintext string
	Envelope  envelope
}

func loadVectors(t testing.TB) []jweVector {
	t.Helper()
	text, err := os.ReadFile("testdata/jwe.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []jweVector
	if err := json.Unmarshal(text, &vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

func (v jweVector) key(t testing.TB) *teeKey {
	t.Helper()
	d, err := hex.DecodeString(v.D)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encode(t testing.TB, e envelope) []byte {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecryptVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		k := v.key(t)
		if k.public.X != v.X || k.public.Y != v.Y {
			t.Errorf("public key = %s %s, want %s %s", k.public.X, k.public.Y, v.X, v.Y)
		}
		got, err := k.decrypt(encode(t, v.Envelope))
		if err != nil || string(got) != v.Plaintext {
			t.Errorf("decrypt = %d bytes, %v", len(got), err)
		}
	}
}

func TestDecryptHostile(t *testing.T) {
	v := loadVectors(t)[0]
	k := v.key(t)
	head, err := base64.RawURLEncoding.DecodeString(v.Envelope.Protected)
	if err != nil {
		t.Fatal(err)
	}
	protected := func(old, new string) func(*envelope) {
		return func(e *envelope) {
			text := strings.Replace(string(head), old, new, 1)
			if text == string(head) {
				t.Fatalf("header has no %s", old)
			}
			e.Protected = base64.RawURLEncoding.EncodeToString([]byte(text))
		}
	}
	tests := []struct {
		name   string
		change func(*envelope)
	}{
		{"other algorithm", protected("ECDH-ES+A256KW", "ECDH-ES+A128KW")},
		{"direct agreement", protected("ECDH-ES+A256KW", "ECDH-ES")},
		{"other encryption", protected("A256GCM", "A128GCM")},
		{"other curve", protected("P-256", "P-521")},
		{"critical extension", protected(`"enc"`, `"crit":["x"],"enc"`)},
		{"point off the curve", protected(`"x":"`, `"x":"A`)},
		{"header changed but equal", protected(`"alg"`, ` "alg"`)},
		{"tag cut", func(e *envelope) { e.Tag = e.Tag[:8] }},
		{"no tag", func(e *envelope) { e.Tag = "" }},
		{"short iv", func(e *envelope) { e.IV = e.IV[:8] }},
		{"ciphertext cut", func(e *envelope) { e.Ciphertext = e.Ciphertext[4:] }},
		{"key cut", func(e *envelope) { e.EncryptedKey = e.EncryptedKey[4:] }},
		{"no key", func(e *envelope) { e.EncryptedKey = "" }},
		{"dot in a part", func(e *envelope) { e.IV += "." }},
		{"empty", func(e *envelope) { *e = envelope{} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := v.Envelope
			tt.change(&e)
			if got, err := k.decrypt(encode(t, e)); !errors.Is(err, ErrReply) {
				t.Errorf("decrypt = %d bytes, %v, want ErrReply", len(got), err)
			}
		})
	}
	other, err := newECKey(elliptic.P256())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.decrypt(encode(t, v.Envelope)); !errors.Is(err, ErrReply) {
		t.Errorf("another key: %v, want ErrReply", err)
	}
}

// A broker that compresses could make a small reply fill the memory.
func TestDecryptRefusesCompression(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for _, compression := range []jose.CompressionAlgorithm{jose.NONE, jose.DEFLATE} {
		enc, err := jose.NewEncrypter(contentAlgorithm, jose.Recipient{Algorithm: algECDH, Key: &private.PublicKey},
			&jose.EncrypterOptions{Compression: compression})
		if err != nil {
			t.Fatal(err)
		}
		jwe, err := enc.Encrypt(make([]byte, 10_000))
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.decrypt([]byte(jwe.FullSerialize()))
		if compressed := compression != jose.NONE; compressed != errors.Is(err, ErrReply) || !compressed && len(got) != 10_000 {
			t.Errorf("compression %q: %d bytes, %v", compression, len(got), err)
		}
	}
}

func TestCanonicalLeavesHTML(t *testing.T) {
	got, err := canonical(runtimeData{Nonce: `<&>"`})
	if want := `{"nonce":"<&>\"","tee-pubkey":{"alg":"","kty":""}}`; err != nil || string(got) != want {
		t.Errorf("canonical = %s, %v, want %s", got, err, want)
	}
}
