package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	tdxtest "github.com/google/go-tdx-guest/testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

func TestEvidence(t *testing.T) {
	dir := t.TempDir()
	file := func(fixture string) string {
		path := filepath.Join(dir, filepath.Base(fixture))
		if err := os.WriteFile(path, evidencetest.Fixture(t, fixture), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	quote, report, vek := file("tdx/tdx_quote_4.dat"), file("snp/test-report.bin"), file("snp/test-vcek.der")
	other, snp, log := file("snp/vcek.testcer"), file("snp/evidence-genoa-trustee.json"), file("eventlog/CCEL_data_ovmf.gz")
	aael := put(t, dir, "aael", append(evidencetest.Fixture(t, "eventlog/CCEL_AAEL_alibabacloud.gz"), bytes.Repeat([]byte{0xff}, 8)...))
	at := []string{"--at", "2026-01-15"}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"decode a quote", []string{"decode", quote}, exitOK, "not verified"},
		{"decode a report", []string{"decode", report}, exitOK, "report version 2, processor not named"},
		{"decode a log", []string{"decode", log}, exitOK, "rtmr0"},
		{"a debug guest", append([]string{"verify", quote}, at...), exitOK, "debug          true"},
		{"evidence", append([]string{"verify", snp}, at...), exitOK, "genuine"},
		{"a report", append([]string{"verify", report, "--vek", vek}, at...), exitOK, "smt"},
		{"a report of another chip", append([]string{"verify", report, "--vek", other}, at...), exitRefused, "not genuine"},
		{"a report alone", append([]string{"verify", report}, at...), exitNotFound, "no VCEK or VLEK"},
		{"a root of others", append([]string{"verify", quote, "--root", other}, at...), exitRefused, "not genuine"},
		{"too late", []string{"verify", quote, "--at", "2055-01-01"}, exitRefused, "expired"},
		{"no date", []string{"verify", quote, "--at", "soon"}, exitUsage, "--at"},
		{"no evidence", []string{"decode", vek}, exitUnimplemented, "no evidence"},
		{"events", []string{"decode", aael}, exitOK, "coco.com some-operation some-content"},
		{"no end", []string{"decode", "/dev/zero"}, exitFailure, "exceeds"},
		{"a folder", []string{"decode", dir}, exitFailure, "is a directory"},
		{"no file", []string{"decode", filepath.Join(dir, "none")}, exitNotFound, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ctl(t, nil, append([]string{"evidence"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out+r.err, c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, c.code, c.want, r.out, r.err)
			}
		})
	}
	piped := ctl(t, bytes.NewReader(evidencetest.Fixture(t, "tdx/tdx_quote_4.dat")), "evidence", "verify", "-", "--at", "2026-01-15")
	if piped.code != exitOK || !strings.Contains(piped.out, "genuine") {
		t.Errorf("from stdin: exit code %d: %s", piped.code, piped.err)
	}
	r := ctl(t, nil, "evidence", "verify", quote, "--at", "2026-01-15", "-o", "json")
	var shown map[string]any
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || shown["debug"] != "true" || shown["tcb_status"] == "" || shown["verdict"] != "genuine" {
		t.Errorf("as JSON: %v, %v", shown, err)
	}
}

// put writes a file into a folder of the test's.
func put(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEvidenceDemands has recorded evidence, and Intel's collateral of the same
// month in a folder.
func TestEvidenceDemands(t *testing.T) {
	dir, folder, empty := t.TempDir(), filepath.Join(t.TempDir(), "June [2023]"), t.TempDir()
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	quote := put(t, dir, "quote", evidencetest.Fixture(t, "tdx/tdx_quote_4.dat"))
	azure := put(t, dir, "azure", evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v2.json"))
	doc := put(t, dir, "initdata.toml", []byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n"))
	for _, name := range []string{"pckcrl", "rootcrl.der", "sample_tcbInfo_response", "sample_qeIdentity_response"} {
		put(t, folder, name, evidencetest.Fixture(t, "tdx/"+name))
	}
	for name, header := range map[string]map[string][]string{"tcb": tdxtest.TcbInfoHeader, "crl": tdxtest.PckCrlHeader} {
		for key, values := range header {
			put(t, folder, name+"-headers", []byte(key+": "+values[0]+"\r\n"))
		}
	}
	june := []string{quote, "--at", "2023-07-01T12:00:00Z", "--collateral", folder}
	january := []string{azure, "--at", "2026-01-15"}
	nonce := "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"
	zero := strings.Repeat("00", 48)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"TCB", june, exitOK, "tcb_status          UpToDate"},
		{"TCB demanded", append(june, "--tcb-status", "UpToDate,OutOfDate"), exitOK, "genuine"},
		{"other TCB demanded", append(june, "--tcb-status", "OutOfDate"), exitMismatch, "TCB status"},
		{"no TCB", append(june, "--tcb-status", "Revoked"), exitUsage, "--tcb-status"},
		{"TCB without collateral", append(january, "--tcb-status", "UpToDate"), exitUsage, "--collateral"},
		{"collateral of another time", []string{quote, "--at", "2024-07-01", "--collateral", folder}, exitRefused, "of another time"},
		{"some collateral", []string{quote, "--at", "2023-07-01", "--collateral", filepath.Join(folder, "pckcrl")}, exitNotFound, "is missing"},
		{"an empty folder", []string{azure, "--at", "2026-01-15", "--collateral", empty}, exitNotFound, "is empty"},
		{"no collateral", append(june, "--collateral", doc), exitFailure, "no collateral"},
		{"debug guest", append(june, "--refuse-debug"), exitMismatch, "debug guest"},
		{"nonce", append(january, "--report-data", nonce, "--refuse-debug"), exitOK, "pcr08"},
		{"other nonce", append(january, "--report-data", nonce[2:]), exitMismatch, "report data"},
		{"no nonce", append(january, "--report-data", "xx"), exitUsage, "--report-data"},
		{"PCR", append(january, "--pcr", "8="+zero[:64]), exitOK, "genuine"},
		{"other PCR", append(january, "--pcr", "0="+zero[:64], "--pcr", "8="+zero[:64]), exitMismatch, "PCR0"},
		{"no PCR", append(january, "--pcr", "0=00"), exitUsage, "--pcr"},
		{"RTMR of another platform", append(january, "--rtmr", "0="+zero), exitMismatch, "RTMR0"},
		{"initdata", append(january, "--initdata", doc), exitMismatch, "initdata"},
		{"measurement", append(june, "--measurement", zero), exitMismatch, "measurement"},
		{"key of no TPM", append(january, "--ak", zero[:64]), exitMismatch, "key of the TPM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ctl(t, nil, append([]string{"evidence", "verify"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out+r.err, c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, c.code, c.want, r.out, r.err)
			}
		})
	}
}

// TestEvidenceToken has the token of a broker whose key is known.
func TestEvidenceToken(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(`{"iss":"broker","iat":1800000000,"exp":1800000300,"submods":{"cpu0":{"ear.status":"affirming","ear.appraisal-policy-id":"default_cpu","ear.trustworthiness-vector":{"hardware":2}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	token := put(t, dir, "token", []byte(text+"\n"))
	known := put(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	at := []string{"--at", "2027-01-15T08:01:00Z"}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"decode", []string{"decode", token}, exitOK, "cpu0.hardware  2 affirming"},
		{"verify", append([]string{"verify", token, "--token-key", known}, at...), exitOK, "genuine"},
		{"its own key", append([]string{"verify", token}, at...), exitUsage, "--token-key"},
		{"expired", []string{"verify", token, "--token-key", known, "--at", "2027-02-01"}, exitRefused, "expired"},
		{"no key", append([]string{"verify", token, "--token-key", token}, at...), exitUsage, "no public key"},
		{"demands", append([]string{"verify", token, "--token-key", known, "--refuse-debug"}, at...), exitUsage, "no evidence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ctl(t, nil, append([]string{"evidence"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out+r.err, c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, c.code, c.want, r.out, r.err)
			}
		})
	}
}

// TestEvidenceTokenJSON has a token that says as little as it may.
func TestEvidenceTokenJSON(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	text := part(`{"alg":"ES256"}`) + "." + part(`{"submods":{"cpu0":{"ear.status":"affirming","ear.trustworthiness-vector":{"hardware":2}}}}`) + "." + strings.Repeat("A", 86)
	r := ctl(t, strings.NewReader(text), "evidence", "decode", "-", "-o", "json")
	var shown struct {
		Issued, Expires string
		Submods         json.RawMessage
	}
	var submods bytes.Buffer
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || json.Compact(&submods, shown.Submods) != nil {
		t.Fatalf("%v: %s%s", err, r.out, r.err)
	}
	want := `[{"name":"cpu0","status":"affirming","policy":"","vector":[{"name":"hardware","value":2,"tier":"affirming"}]}]`
	if submods.String() != want || shown.Issued != "not told" || shown.Expires != "not told" {
		t.Errorf("issued %q, expires %q, submods %s", shown.Issued, shown.Expires, &submods)
	}
}

func TestKBSRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.toml")
	if err := os.WriteFile(file, []byte("[[resource]]\npath = \"*/*/*\"\nmesurement = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := ctl(t, nil, "kbs", "serve", "--listen", "127.0.0.1:0", "--resources", t.TempDir(), "--rules", file)
	if r.code != exitFailure || !strings.Contains(r.err, "unknown key resource.mesurement") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}
