package verify

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4"
)

// Token is an attestation result as a broker signs it (EAT Attestation Results,
// draft-fv-rats-ear), read and not judged.
type Token struct {
	Algorithm string
	KeyID     string
	Claims    json.RawMessage
	Issuer    string
	Profile   string
	Issued    time.Time // zero where it does not say
	Expires   time.Time // zero where it does not say
	Submods   []Submod

	jws *jose.JSONWebSignature
}

// Submod is the appraisal of one attester.
type Submod struct {
	Name   string  `json:"name"`
	Status string  `json:"status"` // affirming, warning, contraindicated or none
	Policy string  `json:"policy"`
	Vector []Trust `json:"vector,omitempty"`
}

// Trust is a claim of the trustworthiness vector.
type Trust struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
	Tier  string `json:"tier"`
}

// vectorNames are those of AR4SI, in its order.
var vectorNames = []string{
	"instance-identity", "configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque", "sourced-data",
}

// maxToken bounds a token.
const maxToken = 1 << 20

// algorithms are those of asymmetric keys.
var algorithms = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
}

// ReadToken reads a token in its compact form. One that no key signed is
// malformed.
func ReadToken(text string) (*Token, error) {
	if len(text) > maxToken {
		return nil, malformed("token of more than %d bytes", maxToken)
	}
	jws, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil {
		return nil, malformed("token: %v", err)
	}
	t := &Token{jws: jws, Claims: jws.UnsafePayloadWithoutVerification()}
	t.Algorithm, t.KeyID = jws.Signatures[0].Header.Algorithm, jws.Signatures[0].Header.KeyID
	var claims struct {
		Issuer  string                     `json:"iss"`
		Profile string                     `json:"eat_profile"`
		Issued  float64                    `json:"iat"`
		Expires float64                    `json:"exp"`
		Submods map[string]json.RawMessage `json:"submods"`
	}
	if err := json.Unmarshal(t.Claims, &claims); err != nil {
		return nil, malformed("claims of the token")
	}
	t.Issuer, t.Profile, t.Issued, t.Expires = claims.Issuer, claims.Profile, seconds(claims.Issued), seconds(claims.Expires)
	for _, name := range slices.Sorted(maps.Keys(claims.Submods)) {
		s, err := readSubmod(name, claims.Submods[name])
		if err != nil {
			return nil, err
		}
		t.Submods = append(t.Submods, s)
	}
	return t, nil
}

func seconds(n float64) time.Time {
	if n <= 0 || n > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

func readSubmod(name string, text json.RawMessage) (Submod, error) {
	var m struct {
		Status json.RawMessage `json:"ear.status"`
		Policy string          `json:"ear.appraisal-policy-id"`
		Vector map[string]int  `json:"ear.trustworthiness-vector"`
	}
	s := Submod{Name: name}
	if err := json.Unmarshal(text, &m); err != nil {
		return s, malformed("submod %q of the token", name)
	}
	s.Policy, s.Status = m.Policy, "none"
	var number int
	if m.Status != nil && json.Unmarshal(m.Status, &s.Status) != nil {
		if err := json.Unmarshal(m.Status, &number); err != nil {
			return s, malformed("ear.status of submod %q", name)
		}
		s.Status = tier(number)
	}
	for _, claim := range vectorNames {
		if v, there := m.Vector[claim]; there {
			s.Vector = append(s.Vector, Trust{claim, v, tier(v)})
		}
	}
	return s, nil
}

// tier is the class of a value (AR4SI, trustworthiness tiers).
func tier(v int) string {
	switch {
	case v >= -1 && v <= 1:
		return "none"
	case v >= -32 && v <= 31:
		return "affirming"
	case v >= -96 && v <= 95:
		return "warning"
	case v >= -128 && v <= 127:
		return "contraindicated"
	}
	return "unknown"
}

// TokenTrust says whose tokens count.
type TokenTrust struct {
	Keys  []crypto.PublicKey // of brokers
	Roots *x509.CertPool     // of the chain that a token may bring
	Now   time.Time          // zero is the present
}

// Verify checks the signature with a key of the caller's, or with the key of a
// chain in the token, x5c beside it or in its jwk, that leads to the caller's
// roots. A key or chain in the token counts for nothing by itself. A token
// that has expired is refused like a forged one.
func (t *Token) Verify(trust TokenTrust) error {
	now := Options{Now: trust.Now}.now()
	keys := slices.Clone(trust.Keys)
	if trust.Roots != nil {
		key, err := t.chained(trust.Roots, now)
		if err != nil && len(keys) == 0 {
			return err
		}
		if err == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return fmt.Errorf("token: no key to verify it with: %w", errdefs.ErrNotFound)
	}
	if !slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { _, err := t.jws.Verify(k); return err == nil }) {
		return forged("token is not signed by a key that is trusted")
	}
	if t.Expires.IsZero() {
		return forged("token does not say when it expires")
	}
	if !now.Before(t.Expires) {
		return forged("token expired at %s", t.Expires.Format(time.RFC3339))
	}
	if now.Before(t.Issued) {
		return forged("token is of later, %s", t.Issued.Format(time.RFC3339))
	}
	return nil
}

// chained is the key of a certificate in the token.
func (t *Token) chained(roots *x509.CertPool, now time.Time) (crypto.PublicKey, error) {
	header := t.jws.Signatures[0].Header
	options := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if chains, err := header.Certificates(options); err == nil {
		return chains[0][0].PublicKey, nil
	}
	if header.JSONWebKey == nil || len(header.JSONWebKey.Certificates) == 0 {
		return nil, forged("token brings no chain that leads to the root")
	}
	certs := header.JSONWebKey.Certificates
	options.Intermediates = x509.NewCertPool()
	for _, c := range certs[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(options); err != nil {
		return nil, forged("chain of the token: %v", err)
	}
	return certs[0].PublicKey, nil
}
