package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence/verify"
)

// ear is what a broker could say.
func ear(exp time.Time) map[string]any {
	return map[string]any{
		"eat_profile": "tag:github.com,2024:confidential-containers/Trustee", "iss": "CoCo-Attestation-Service",
		"iat": exp.Add(-5 * time.Minute).Unix(), "exp": exp.Unix(),
		"submods": map[string]any{
			"cpu0": map[string]any{
				"ear.status": "warning", "ear.appraisal-policy-id": "default_cpu",
				"ear.trustworthiness-vector": map[string]int{"hardware": 2, "configuration": 36, "executables": 99, "file-system": 0},
			},
			"gpu0": map[string]any{"ear.status": 96},
			"gpu1": map[string]any{},
		},
	}
}

// tokenSigner is a broker's key with a certificate and its root.
type tokenSigner struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	root *x509.CertPool
}

func newTokenSigner(t testing.TB) tokenSigner {
	t.Helper()
	var parent *x509.Certificate
	var signer, key *ecdsa.PrivateKey
	pool := x509.NewCertPool()
	for i, name := range []string{"root", "broker"} {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: i == 0, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		if signer = key; i == 0 {
			pool.AddCert(parent)
		}
	}
	return tokenSigner{key, parent, pool}
}

// sign makes a token whose header has the members.
func (s tokenSigner) sign(t testing.TB, claims map[string]any, header map[jose.HeaderKey]any) string {
	t.Helper()
	o := &jose.SignerOptions{ExtraHeaders: header}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, o)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReadToken(t *testing.T) {
	exp := time.Unix(1800000000, 0)
	tok, err := verify.ReadToken(newTokenSigner(t).sign(t, ear(exp), nil))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Algorithm != "ES256" || tok.Issuer != "CoCo-Attestation-Service" || !tok.Expires.Equal(exp) || len(tok.Submods) != 3 {
		t.Fatalf("got %+v", tok)
	}
	var said []string
	for _, s := range tok.Submods {
		said = append(said, s.Name+" "+s.Status)
		for _, v := range s.Vector {
			said = append(said, v.Name+" "+v.Tier)
		}
	}
	want := "cpu0 warning, configuration warning, executables contraindicated, file-system none, hardware affirming, gpu0 contraindicated, gpu1 none"
	if got := strings.Join(said, ", "); got != want {
		t.Errorf("got %s", got)
	}
}

func TestVerifyToken(t *testing.T) {
	s, other := newTokenSigner(t), newTokenSigner(t)
	soon := ear(time.Now().Add(time.Minute))
	key := []crypto.PublicKey{&s.key.PublicKey}
	x5c := map[jose.HeaderKey]any{"x5c": [][]byte{s.cert.Raw}}
	jwk := map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &s.key.PublicKey, Certificates: []*x509.Certificate{s.cert}}}
	bare := map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &s.key.PublicKey}}
	endless := ear(time.Now())
	delete(endless, "exp")
	for name, c := range map[string]struct {
		claims map[string]any
		header map[jose.HeaderKey]any
		trust  verify.TokenTrust
		fault  string
	}{
		"key":                   {soon, nil, verify.TokenTrust{Keys: key}, ""},
		"chain":                 {soon, x5c, verify.TokenTrust{Roots: s.root}, ""},
		"chain in jwk":          {soon, jwk, verify.TokenTrust{Roots: s.root}, ""},
		"one of two keys":       {soon, nil, verify.TokenTrust{Keys: []crypto.PublicKey{&other.key.PublicKey, &s.key.PublicKey}}, ""},
		"nothing trusted":       {soon, jwk, verify.TokenTrust{}, "no key"},
		"jwk alone":             {soon, bare, verify.TokenTrust{Roots: s.root}, "brings no chain"},
		"jwk beside a key":      {soon, bare, verify.TokenTrust{Keys: []crypto.PublicKey{&other.key.PublicKey}}, "not signed by"},
		"chain of another":      {soon, x5c, verify.TokenTrust{Roots: other.root}, "chain"},
		"chain in jwk, another": {soon, jwk, verify.TokenTrust{Roots: other.root}, "chain of the token"},
		"another key":           {soon, nil, verify.TokenTrust{Keys: []crypto.PublicKey{&other.key.PublicKey}}, "not signed by"},
		"expired":               {ear(time.Now().Add(-time.Minute)), nil, verify.TokenTrust{Keys: key}, "expired"},
		"of later":              {ear(time.Now().Add(time.Hour)), nil, verify.TokenTrust{Keys: key}, "of later"},
		"endless":               {endless, nil, verify.TokenTrust{Keys: key}, "when it expires"},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := verify.ReadToken(s.sign(t, c.claims, c.header))
			if err != nil {
				t.Fatal(err)
			}
			err = tok.Verify(c.trust)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("got %v, want %q", err, c.fault)
			}
			if c.fault != "" && !errdefs.IsUnauthorized(err) && !errdefs.IsNotFound(err) {
				t.Errorf("class of %v", err)
			}
		})
	}
}

// constantSigner is the same in every process of a fuzzer, without its chain.
func constantSigner(t testing.TB) tokenSigner {
	t.Helper()
	s := newTokenSigner(t)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 7))
	if err != nil {
		t.Fatal(err)
	}
	s.key = key
	return s
}

// farAway is a result that is valid as long as these tests are.
func farAway() map[string]any {
	claims := ear(time.Unix(1<<33, 0))
	claims["iat"] = 1
	return claims
}

func FuzzToken(f *testing.F) {
	known, s := constantSigner(f), newTokenSigner(f)
	genuine, err := json.Marshal(farAway())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(known.sign(f, farAway(), nil))
	f.Add(known.sign(f, farAway(), map[jose.HeaderKey]any{"x5c": [][]byte{s.cert.Raw}}))
	f.Add(s.sign(f, farAway(), map[jose.HeaderKey]any{"x5c": [][]byte{s.cert.Raw}}))
	f.Add(s.sign(f, farAway(), map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &s.key.PublicKey, Certificates: []*x509.Certificate{s.cert}}}))
	f.Add(s.sign(f, ear(time.Now()), map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &s.key.PublicKey}}))
	f.Add(s.sign(f, map[string]any{"submods": map[string]any{"cpu0": map[string]any{"ear.status": "x", "ear.trustworthiness-vector": map[string]int{"hardware": 300, "executables": -100}}}}, nil))
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJtZSJ9.")
	stranger := newTokenSigner(f)
	trust := verify.TokenTrust{Keys: []crypto.PublicKey{&stranger.key.PublicKey, &known.key.PublicKey}, Roots: stranger.root}
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := verify.ReadToken(text); err == nil && tok.Verify(trust) == nil && !bytes.Equal(tok.Claims, genuine) {
			t.Errorf("accepted %q", text)
		}
	})
}
