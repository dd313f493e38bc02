package devkbs

import (
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
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
// and the guest counts as a debug guest. A token tells no more than the session
// that it comes from: who gets nothing there gets nothing for it either.
func claimed(annotated map[string]json.RawMessage) *verify.Statement {
	st := &verify.Statement{Debug: true, Unbound: true}
	for _, kind := range kinds {
		text, there := annotated[string(kind)]
		if !there {
			continue
		}
		st.TEE, st.HostControlled = kind, kind == evidence.TPM
		var said saying
		if json.Unmarshal(text, &said) == nil {
			said.fill(st)
		}
	}
	return st
}

// saying is what claims writes.
type saying struct {
	Debug       *bool             `json:"debug"`
	Binding     string            `json:"initdata"`
	Measurement string            `json:"measurement"`
	InitData    string            `json:"init_data"`
	RTMR        []string          `json:"rtmr"`
	PCR         map[string]string `json:"tpm"`
	AK          string            `json:"ak"` // of a plain TPM
	TCBStatus   string            `json:"tcb_status"`
}

func (said saying) fill(st *verify.Statement) {
	st.Debug = said.Debug == nil || *said.Debug
	st.Unbound = said.Binding == "unbound" || st.HostControlled || st.TEE == evidence.Sample
	if slices.Contains(verify.TCBStatuses, said.TCBStatus) {
		st.TCBStatus = said.TCBStatus
	}
	take(st.Measurement[:], said.Measurement)
	take(st.AK[:], said.AK)
	if b, err := hex.DecodeString(said.InitData); err == nil {
		st.InitData = b
	}
	for i, r := range said.RTMR {
		if i < len(st.RTMR) {
			take(st.RTMR[i][:], r)
		}
	}
	// One that is left out would count as zero.
	if len(said.PCR) == verify.PCRs {
		st.PCR = make([][32]byte, verify.PCRs)
		for i := range st.PCR {
			if !take(st.PCR[i][:], said.PCR[fmt.Sprintf("pcr%02d", i)]) {
				st.PCR = nil
				return
			}
		}
	}
}

// take reads a value of just that size, in hex.
func take(into []byte, text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == len(into) && copy(into, b) == len(b)
}
