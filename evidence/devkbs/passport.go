package devkbs

import (
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// maxToken is what fits into the headers of a request.
const maxToken = 60 << 10

// guest is whom a resource is for: the key, and what is known of the guest that
// it was bound to.
type guest struct {
	key       *guestKey
	statement *verify.Statement
}

// guestOf finds the guest behind a request: by its session, or by a token that
// this broker or one that it trusts has signed.
func (s *Server) guestOf(r *http.Request) (guest, error) {
	if n, ok := s.attested(r); ok {
		return guest{n.proof.key, n.proof.statement}, nil
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
	g.statement = claimed(claims.Submods.CPU.Annotated)
	return g, true
}

// claimed reads what a token of this broker says of the guest. Where a token
// of another broker tells less, or in other words, no condition on it is met,
// and the guest counts as a debug guest.
func claimed(annotated map[string]json.RawMessage) *verify.Statement {
	st := &verify.Statement{Debug: true}
	for _, kind := range []evidence.Kind{evidence.TDX, evidence.SNP, evidence.Sample} {
		text, there := annotated[string(kind)]
		if !there {
			continue
		}
		var said struct {
			Debug       *bool    `json:"debug"`
			Measurement string   `json:"measurement"`
			InitData    string   `json:"init_data"`
			RTMR        []string `json:"rtmr"`
		}
		st.TEE = kind
		if json.Unmarshal(text, &said) != nil {
			continue
		}
		st.Debug = said.Debug == nil || *said.Debug
		if b, err := hex.DecodeString(said.Measurement); err == nil {
			copy(st.Measurement[:], b)
		}
		if b, err := hex.DecodeString(said.InitData); err == nil {
			st.InitData = b
		}
		for i, r := range said.RTMR {
			if b, err := hex.DecodeString(r); err == nil && i < len(st.RTMR) {
				copy(st.RTMR[i][:], b)
			}
		}
	}
	return st
}
