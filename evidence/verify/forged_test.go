package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// TestForgedQuotes takes the genuine certification of a recorded quote for
// other contents, and certifications of a platform under its own root that is
// not what Intel's enclave would make.
func TestForgedQuotes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := bytes.Clone(evidencetest.Fixture(t, "tdx/tdx_quote_5.dat"))
	const signed = 48 + 6 + 648
	raw[48+6+136] ^= 1 // MRTD
	sum := sha256.Sum256(raw[:signed])
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	at := signed + 4
	r.FillBytes(raw[at : at+32])
	s.FillBytes(raw[at+32 : at+64])
	copy(raw[at+64:], point[1:])
	_, err = verify.Quote(raw, verify.Options{Now: day("2026-01-15")})
	if !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), "attestation key") {
		t.Errorf("another attestation key: %v", err)
	}
	for fault, edit := range map[string]func(report []byte){
		"quoting enclave is not Intel's": func(report []byte) { report[128] ^= 1 }, // MRSIGNER
		"quoting enclave is not":         func(report []byte) { report[48] |= 2 },  // DEBUG
		"attestation key":                func(report []byte) { report[320] ^= 1 },
	} {
		p := evidencetest.NewTDX(t)
		p.EditQE = edit
		raw, err := p.Quote([64]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify.Quote(raw, verify.Options{TDXRoots: p.Roots()}); !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), fault) {
			t.Errorf("got %v, want %q", err, fault)
		}
	}
}

// TestForgedReports are signed by a genuine key under a root of their own, but
// do not fit its certificate.
func TestForgedReports(t *testing.T) {
	for fault, edit := range map[string]func(r []byte){
		"other firmware": func(r []byte) { r[0x186] = 9 },
		"another chip":   func(r []byte) { r[0x1a0] = 1 },
	} {
		p := evidencetest.NewSNP(t)
		p.Edit = edit
		raw, err := p.Report([64]byte{})
		if err != nil {
			t.Fatal(err)
		}
		root, between := p.Roots()
		o := verify.Options{SNPRoots: []verify.SNPChain{{Product: "Milan", Kind: "VCEK", Root: root, Between: between}}}
		if _, err := verify.Report(raw, verify.Certs{VEK: p.VCEK().Raw}, o); !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), fault) {
			t.Errorf("got %v, want %q", err, fault)
		}
	}
}
