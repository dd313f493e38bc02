package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// azures are of Azure's machines, with what Trustee's tests expect of them.
var azures = []struct {
	file   string
	kind   evidence.Kind
	format string
	nonce  string // hex
	pcr0   string // beginning
}{
	{"az-snp-vtpm/evidence-v0.json.gz", evidence.AzSNP, "evidence version 0, report version 3, Milan", hex.EncodeToString([]byte("challenge")), "e15c4479"},
	{"az-snp-vtpm/evidence-v1.json", evidence.AzSNP, "evidence version 1, report version 3, Milan", hex.EncodeToString([]byte("challenge")), "e15c4479"},
	{
		"az-snp-vtpm/evidence-v2.json", evidence.AzSNP, "evidence version 2, report version 3, Milan",
		"982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef", "84275b2f",
	},
	{
		"az-snp-vtpm/evidence-genoa.json.gz", evidence.AzSNP, "evidence version 0, report version 3, Genoa",
		"0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f", "afd689d0",
	},
	{"az-tdx-vtpm/evidence-v0.json.gz", evidence.AzTDX, "evidence version 0, quote version 4", hex.EncodeToString([]byte("challenge")), "782b20b1"},
	{"az-tdx-vtpm/evidence-v1.json", evidence.AzTDX, "evidence version 1, quote version 4", hex.EncodeToString([]byte("challenge")), "782b20b1"},
}

var thisJanuary = verify.Options{Now: day("2026-01-15")}

func TestRecordedAzure(t *testing.T) {
	for _, c := range azures {
		t.Run(c.file, func(t *testing.T) {
			data := evidencetest.Fixture(t, "azure/"+c.file)
			st, err := verify.Evidence(c.kind, data, thisJanuary)
			if err != nil {
				t.Fatal(err)
			}
			nonce := unhex(t, c.nonce)
			if st.TEE != c.kind || st.Format != c.format || st.HostControlled || len(st.PCR) != verify.PCRs {
				t.Errorf("got %+v", st)
			}
			if !st.Carries(nonce) || st.Carries(append(nonce, 0)) || st.Carries(nonce[:8]) {
				t.Errorf("bound to %x", st.ReportData)
			}
			if got := hex.EncodeToString(st.PCR[0][:]); !strings.HasPrefix(got, c.pcr0) {
				t.Errorf("PCR 0 = %s", got)
			}
			for _, name := range []string{"debug", "smt", "tcb_status", "vm.secure-boot", "vm.console-enabled"} {
				if fact(st, name) == "" {
					t.Errorf("no fact %s", name)
				}
			}
			other := map[evidence.Kind]evidence.Kind{evidence.AzSNP: evidence.AzTDX, evidence.AzTDX: evidence.AzSNP}[c.kind]
			if _, err := verify.Evidence(other, data, thisJanuary); err == nil {
				t.Errorf("accepted for %s", other)
			}
			if _, err := verify.Evidence(c.kind, data, verify.Options{Now: day("2055-01-01")}); !errdefs.IsUnauthorized(err) {
				t.Errorf("after the certificates expired: %v", err)
			}
		})
	}
}

// TestAzureInitData uses the digest and register of Trustee's test.
func TestAzureInitData(t *testing.T) {
	st := verify.Statement{TEE: evidence.AzSNP, PCR: make([][32]byte, verify.PCRs)}
	st.PCR[8] = [32]byte(unhex(t, "bddaccb9c52249e97a31baea61b7d91be8221a16e703d92148d04fb8e9c1dfdd"))
	digest := unhex(t, "8505e4e25e50a27c5dc8147af88efbece627fbea55291911eff832d9ee127781")
	if !st.BootedWith(digest) {
		t.Error("the initdata is not found in PCR 8")
	}
	if st.BootedWith(append(digest, make([]byte, 16)...)) {
		t.Error("a longer digest is found in PCR 8")
	}
	if digest[0] ^= 1; st.BootedWith(digest) || st.BootedWith(nil) {
		t.Error("other initdata is found in PCR 8")
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForgedAzure changes one thing at a time in the second version.
func TestForgedAzure(t *testing.T) {
	recorded := evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v2.json")
	for fault, edit := range map[string]func(e map[string]any, tpm map[string]any){
		"is not signed by the attestation key": func(_, tpm map[string]any) { tpm["signature"] = flip(t, tpm["signature"], 0) },
		"something that is no quote": func(_, tpm map[string]any) {
			tpm["message"] = strings.Replace(tpm["message"].(string), "ff544347", "00000000", 1)
		},
		"PCRs are not those": func(_, tpm map[string]any) { tpm["pcrs"].([]any)[0] = strings.Repeat("00", 32) },
		"23 PCRs":            func(_, tpm map[string]any) { tpm["pcrs"] = tpm["pcrs"].([]any)[:23] },
		"PCR 3 of 31 bytes":  func(_, tpm map[string]any) { tpm["pcrs"].([]any)[3] = strings.Repeat("00", 31) },
		"other registers": func(_, tpm map[string]any) {
			tpm["message"] = flip(t, tpm["message"], len(tpm["message"].(string))/2-35)
		},
		"version 3":              func(e, _ map[string]any) { e["version"] = 3 },
		"TPM quote":              func(_, tpm map[string]any) { tpm["message"] = tpm["message"].(string) + "00" },
		"hcl_report: ends early": func(e, _ map[string]any) { e["hcl_report"] = e["hcl_report"].(string)[:2000] },
		"not the nonce": func(_, tpm map[string]any) {
			// An older quote of the same key, whose nonce is its own.
			tpm["message"] = flip(t, tpm["message"], 50)
		},
	} {
		t.Run(fault, func(t *testing.T) {
			var e map[string]any
			if err := json.Unmarshal(recorded, &e); err != nil {
				t.Fatal(err)
			}
			edit(e, e["tpm_quote"].(map[string]any))
			data, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify.Evidence(evidence.AzSNP, data, thisJanuary); err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAzureClaims changes each part of the paravisor's report.
func TestAzureClaims(t *testing.T) {
	var recorded map[string]any
	if err := json.Unmarshal(evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v1.json"), &recorded); err != nil {
		t.Fatal(err)
	}
	hcl, err := base64.URLEncoding.DecodeString(recorded["hcl_report"].(string))
	if err != nil {
		t.Fatal(err)
	}
	const head = 32 + 1184
	for fault, at := range map[string]int{
		"not one of Azure's":     0,
		"signature does not":     32 + 0x90, // measurement of the processor's report
		"another platform":       head + 8,
		"a hash of type":         head + 12,
		"processor's report":     bytes.Index(hcl, []byte("user-data")) + 14,
		"hcl_report has no HCLA": bytes.Index(hcl, []byte("HCLAkPub")),
		"attestation key":        bytes.Index(hcl, []byte(`"n":"`)) + 20,
	} {
		t.Run(fault, func(t *testing.T) {
			changed := bytes.Clone(hcl)
			changed[at] ^= 1
			e := maps.Clone(recorded)
			e["hcl_report"] = base64.URLEncoding.EncodeToString(changed)
			data, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify.Evidence(evidence.AzSNP, data, thisJanuary); err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// flip changes a bit of the byte at a place in hex.
func flip(t *testing.T, text any, at int) string {
	b := unhex(t, text.(string))
	b[at] ^= 1
	return hex.EncodeToString(b)
}
