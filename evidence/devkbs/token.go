package devkbs

import (
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
)

// Issuer signs the tokens of this broker. A guest on a real platform refuses
// tokens in this name.
const Issuer = "coffer-devkbs"

func newSigner(key *ecdsa.PrivateKey) (jose.Signer, error) {
	opts := (&jose.SignerOptions{EmbedJWK: true}).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
	if err != nil {
		return nil, fmt.Errorf("make token signer: %w", err)
	}
	return signer, nil
}

// verdict is what a token is made of.
type verdict struct {
	tee      evidence.Kind
	claims   map[string]any
	nonce    string
	key      *guestKey
	initData *initdata.Document // nil when the guest sent none

	additional string                // evidence of devices, as it was sent
	devices    map[evidence.Kind]any // what is known of them
}

// sign makes a token in the form of an EAT attestation result. Its status says
// that the evidence was consistent and nothing more: the rules judge when a
// resource is asked for.
func (s *Server) sign(v verdict) (string, error) {
	annotated := map[string]any{
		string(v.tee): v.claims,
		"runtime_data_claims": map[string]any{
			"nonce":               v.nonce,
			"tee-pubkey":          v.key.members,
			"additional-evidence": v.additional,
		},
	}
	if v.initData != nil {
		annotated["init_data"] = v.initData.Digest()
		annotated["init_data_claims"] = v.initData.Data
	}
	submods := map[string]any{"cpu0": appraisal(annotated)}
	for kind, said := range v.devices {
		submods[fmt.Sprintf("gpu%d", len(submods)-1)] = appraisal(map[string]any{string(kind): said})
	}
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
		"iss":         s.options.Issuer,
		"iat":         now.Unix(),
		"exp":         now.Add(s.options.Lifetime).Unix(),
		"submods":     submods,
	})
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return jws.CompactSerialize()
}

func appraisal(annotated map[string]any) map[string]any {
	return map[string]any{
		"ear.status":                      "warning",
		"ear.appraisal-policy-id":         "default",
		"ear.veraison.annotated-evidence": annotated,
	}
}
