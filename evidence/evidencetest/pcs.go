package evidencetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// PCS is Intel's provisioning certification service for a platform of these
// tests. Change TCBInfo and Identity, which it signs, before its first answer.
type PCS struct {
	TCBInfo  map[string]any
	Identity map[string]any
	Revoke   []*big.Int // serial numbers of PCK certificates; the platform's is 3
	RevokeCA []*big.Int // of certificates of the root; the PCK's issuer is 2

	platform *TDX
	cert     *x509.Certificate
	key      *ecdsa.PrivateKey
	t        testing.TB
}

// NewPCS knows one TCB level of the platform, UpToDate, whose versions are
// zeros but for those of its PCK certificate.
func NewPCS(t testing.TB, platform *TDX) *PCS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := pckTemplate("Intel SGX TCB Signing", 4)
	template.IsCA, template.KeyUsage = false, x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, platform.root, &key.PublicKey, platform.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	dates := func(m map[string]any) map[string]any {
		m["issueDate"], m["nextUpdate"] = now.Add(-time.Hour).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)
		m["tcbEvaluationDataNumber"] = 20
		return m
	}
	module := map[string]any{"mrsigner": hex.EncodeToString(make([]byte, 48)), "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	return &PCS{
		TCBInfo: dates(map[string]any{
			"id": "TDX", "version": 3, "fmspc": FMSPC, "pceId": "0000", "tcbType": 0, "tdxModule": module,
			"tcbLevels": []any{Level("UpToDate", 0)},
		}),
		Identity: dates(map[string]any{
			"id": "TD_QE", "version": 2, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
			"attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
			"mrsigner": hex.EncodeToString(intelSigner()), "isvprodid": 2, "tcbLevels": []any{ISVLevel("UpToDate", 4)},
		}),
		platform: platform, cert: cert, key: key, t: t,
	}
}

// Level is a TCB level that demands what each PCK certificate of these tests
// has, and svn of the components of TDX from the third on.
func Level(status string, svn int) map[string]any {
	sgx, tdx := make([]any, 16), make([]any, 16)
	for i := range sgx {
		sgx[i], tdx[i] = map[string]any{"svn": 3}, map[string]any{"svn": 0}
	}
	for i := 2; i < len(tdx); i++ {
		tdx[i] = map[string]any{"svn": svn}
	}
	return map[string]any{
		"tcb": map[string]any{"sgxtcbcomponents": sgx, "pcesvn": 11, "tdxtcbcomponents": tdx}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status,
		"advisoryIDs": []string{"INTEL-SA-" + status},
	}
}

// ISVLevel is a level of an enclave or a module.
func ISVLevel(status string, svn int) map[string]any {
	return map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status}
}

// Answers are what the service sends, by the names of files: bodies, and the
// headers with the issuer chain.
func (p *PCS) Answers() map[string][]byte {
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.platform.root.Raw}))
	return map[string][]byte{
		"tcb.json":         p.signed("tcbInfo", p.TCBInfo),
		"qe-identity.json": p.signed("enclaveIdentity", p.Identity),
		"headers":          []byte("Content-Type: application/json\r\nTCB-Info-Issuer-Chain: " + url.PathEscape(chain) + "\r\n"),
		"pck.crl":          p.crl(p.platform.ca, p.platform.caKey, p.Revoke),
		"root.crl":         p.crl(p.platform.root, p.platform.rootKey, p.RevokeCA),
	}
}

// ClientToolFile is all of it in one file, the way Intel's PcsClientTool writes
// it: indented, the CRLs in hex.
func (p *PCS) ClientToolFile() []byte {
	a := p.Answers()
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
	text, err := json.MarshalIndent(map[string]any{"collaterals": map[string]any{
		"tcbinfos":       []any{map[string]any{"fmspc": FMSPC, "tdx_tcbinfo": json.RawMessage(a["tcb.json"])}},
		"tdqeidentity":   json.RawMessage(a["qe-identity.json"]),
		"pckcacrl":       map[string]any{"platformCrl": hex.EncodeToString(a["pck.crl"])},
		"rootcacrl":      hex.EncodeToString(a["root.crl"]),
		"rootcacrl_cdp":  "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
		"pckcerts":       []any{},
		"certificates":   map[string]any{"SGX-TCB-Info-Issuer-Chain": url.PathEscape(chain)},
		"pck_cert_count": 0,
	}}, "", "  ")
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func (p *PCS) signed(name string, v map[string]any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	signature, err := sign(p.key, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return []byte(`{"` + name + `":` + string(body) + `,"signature":"` + hex.EncodeToString(signature) + `"}`)
}

func (p *PCS) crl(issuer *x509.Certificate, key *ecdsa.PrivateKey, serials []*big.Int) []byte {
	template := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}
	for _, n := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: n, RevocationTime: time.Now().Add(-time.Hour), ExtraExtensions: []pkix.Extension{},
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return der
}
