package kbs_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// keyKinds are the values of tee_key_algorithm, with the members their JWK has.
var keyKinds = map[string]string{
	"ECDH-ES+A256KW-P256": "alg crv kty x y",
	"ECDH-ES+A256KW-P521": "alg crv kty x y",
	"RSA-OAEP-256":        "alg e kty n",
	"ML-KEM-768+A192KW":   "alg kty pub",
}

func TestKeyKinds(t *testing.T) {
	for kind, members := range keyKinds {
		t.Run(kind, func(t *testing.T) {
			k := evidencetest.NewKBS(t, options())
			var sent map[string]json.RawMessage
			k.Intercept(rewrite("/attest", func(s string) string {
				var body struct {
					Runtime struct {
						Key map[string]json.RawMessage `json:"tee-pubkey"`
					} `json:"runtime-data"`
				}
				if err := json.Unmarshal([]byte(s), &body); err != nil {
					t.Error(err)
				}
				sent = body.Runtime.Key
				return s
			}))
			wantContents(t, newClient(t, kbs.Config{URL: k.URL, KeyAlgorithm: kind}))
			var got []string
			for member := range sent {
				got = append(got, member)
			}
			slices.Sort(got)
			if text := strings.Join(got, " "); text != members {
				t.Errorf("JWK has %s, want %s", text, members)
			}
		})
	}
}

// Whatever part of an envelope is changed, nothing comes out of it.
func TestKeyKindsRefuseChangedEnvelopes(t *testing.T) {
	for kind := range keyKinds {
		for _, part := range []string{"protected", "encrypted_key", "iv", "ciphertext", "tag"} {
			t.Run(kind+"/"+part, func(t *testing.T) {
				k := evidencetest.NewKBS(t, options())
				k.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, "/resource/") {
						return false
					}
					answer := &recorder{header: http.Header{}}
					k.Broker.ServeHTTP(answer, r)
					var e map[string]string
					if err := json.Unmarshal(answer.body, &e); err != nil {
						t.Errorf("broker sent %s", answer.body)
					}
					e[part] = flip(t, e[part])
					_ = json.NewEncoder(w).Encode(e)
					return true
				})
				got, err := newClient(t, kbs.Config{URL: k.URL, KeyAlgorithm: kind}).Resource(ctx, name)
				if !errors.Is(err, kbs.ErrReply) {
					t.Errorf("Resource = %d bytes, %v, want ErrReply", len(got), err)
				}
			})
		}
	}
}

// flip changes one bit in the middle of what the text encodes.
func flip(t *testing.T, text string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		t.Fatalf("part %.20q: %v", text, err)
	}
	b[len(b)/2] ^= 1
	return base64.RawURLEncoding.EncodeToString(b)
}

// recorder keeps what a handler writes.
type recorder struct {
	header http.Header
	body   []byte
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Write(p []byte) (int, error) { r.body = append(r.body, p...); return len(p), nil }
