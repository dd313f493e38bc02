package tee

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// recordedHCL are reports of real machines, and what stands in them.
func recordedHCL(t testing.TB) map[string][]byte {
	t.Helper()
	var sent struct {
		Report string `json:"hcl_report"`
	}
	if err := json.Unmarshal(evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v2.json"), &sent); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.URLEncoding.DecodeString(sent.Report)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"SNP with data": raw,
		"SNP":           evidencetest.Fixture(t, "azure/az-snp-vtpm/hcl-report.bin"),
		"TDX":           evidencetest.Fixture(t, "azure/az-tdx-vtpm/hcl-report.bin"),
	}
}

func TestRecordedHCL(t *testing.T) {
	for name, want := range map[string]struct {
		kind     uint32
		modulus  string // its beginning
		userData string
	}{
		"SNP with data": {hclSNP, "9942bb7d0000c4c321", "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"},
		"SNP":           {hclSNP, "a91ecba800010dccd9", ""},
		"TDX":           {hclTDX, "c89b17820000a5e9b7", ""},
	} {
		raw := recordedHCL(t)[name]
		r, err := parseHCL(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		st, err := r.statement()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := hex.DecodeString(want.userData)
		if err != nil {
			t.Fatal(err)
		}
		padded := append(data, make([]byte, 64-len(data))...)
		n := hex.EncodeToString(st.key.N.Bytes())
		if r.report != want.kind || n[:len(want.modulus)] != want.modulus || st.key.E != 65537 || !bytes.Equal(st.userData, padded) {
			t.Errorf("%s: type %d, key %s…, %d, user-data %x", name, r.report, n[:24], st.key.E, st.userData)
		}
		if err := r.bound(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHCLBinds sees every bit of the claims and of their digest.
func TestHCLBinds(t *testing.T) {
	for name, raw := range recordedHCL(t) {
		r, err := parseHCL(raw)
		if err != nil {
			t.Fatal(err)
		}
		digest := hclHardware + map[uint32]int{hclSNP: reportInput, hclTDX: tdreportData}[r.report]
		for _, part := range [][2]int{{digest, digest + sha256.Size}, {hclClaims, hclClaims + len(r.claims)}} {
			for at := part[0]; at < part[1]; at++ {
				for bit := range 8 {
					raw[at] ^= 1 << bit
					if r.bound() == nil {
						t.Fatalf("%s: bit %d of byte %d does not count", name, bit, at)
					}
					raw[at] ^= 1 << bit
				}
			}
		}
		if err := r.bound(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHCLSizes(t *testing.T) {
	raw := recordedHCL(t)["TDX"]
	r, err := parseHCL(raw)
	if err != nil {
		t.Fatal(err)
	}
	end := hclClaims + len(r.claims)
	for size := range end {
		if _, err := parseHCL(raw[:size]); err == nil {
			t.Errorf("%d bytes of %d are taken", size, end)
		}
	}
	if again, err := parseHCL(raw[:end]); err != nil || again.bound() != nil {
		t.Errorf("without the zeros at the end: %v", err)
	}
	if _, err := parseHCL(append(bytes.Clone(raw), make([]byte, maxHCL)...)); err == nil {
		t.Error("a report of any size is taken")
	}
}
