package devkbs

import (
	"crypto/ecdsa"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence"
)

// maxToken is what fits into the headers of a request.
const maxToken = 60 << 10

// guest is whom a resource is for: the key, and the platform it was bound to.
type guest struct {
	key *guestKey
	tee evidence.Kind
}

// guestOf finds the guest behind a request: by its session, or by a token that
// this broker or one that it trusts has signed.
func (s *Server) guestOf(r *http.Request) (guest, error) {
	if n, ok := s.attested(r); ok {
		return guest{n.key, n.tee}, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return guest{}, &refusal{kind: "TokenNotFound", detail: "Attestation Token not found"}
	}
	g, ok := s.passport(token)
	if !ok {
		return guest{}, &refusal{kind: "TokenVerifierError", detail: "Token Verifier error"}
	}
	return g, nil
}

// passport verifies a token and takes the key and the platform out of it.
func (s *Server) passport(token string) (g guest, ok bool) {
	if len(token) > maxToken {
		return g, false
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return g, false
	}
	var payload []byte
	for _, key := range slices.Concat(s.options.Trust, []*ecdsa.PublicKey{s.PublicKey()}) {
		if text, err := jws.Verify(key); err == nil {
			payload = text
		}
	}
	var claims struct {
		Expiry  int64 `json:"exp"`
		Submods struct {
			CPU struct {
				Annotated map[string]json.RawMessage `json:"ear.veraison.annotated-evidence"`
			} `json:"cpu0"`
		} `json:"submods"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expiry <= time.Now().Unix() {
		return g, false
	}
	var runtime struct {
		Key json.RawMessage `json:"tee-pubkey"`
	}
	if json.Unmarshal(claims.Submods.CPU.Annotated["runtime_data_claims"], &runtime) != nil {
		return g, false
	}
	if g.key, err = parseKey(runtime.Key); err != nil {
		return g, false
	}
	for _, kind := range []evidence.Kind{evidence.TDX, evidence.SNP, evidence.Sample} {
		if _, there := claims.Submods.CPU.Annotated[string(kind)]; there {
			g.tee = kind
		}
	}
	return g, true
}
