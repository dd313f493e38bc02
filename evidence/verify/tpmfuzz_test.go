package verify_test

import (
	"encoding/json"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// FuzzAzure takes the parts of recorded evidence apart from their JSON. What is
// accepted has to be what was recorded, since the fuzzer cannot sign.
func FuzzAzure(f *testing.F) {
	type quote struct {
		Signature string   `json:"signature"`
		Message   string   `json:"message"`
		PCRs      []string `json:"pcrs"`
	}
	type wire struct {
		Version int    `json:"version"`
		TPM     quote  `json:"tpm_quote"`
		HCL     string `json:"hcl_report"`
		VCEK    string `json:"vcek,omitempty"`
		Quote   string `json:"td_quote,omitempty"`
	}
	genuine := map[[32]byte]bool{}
	registers := map[string][]string{}
	for _, name := range []string{"az-snp-vtpm/evidence-v1.json", "az-snp-vtpm/evidence-v2.json", "az-tdx-vtpm/evidence-v1.json"} {
		data := evidencetest.Fixture(f, "azure/"+name)
		var w wire
		if err := json.Unmarshal(data, &w); err != nil {
			f.Fatal(err)
		}
		kind := evidence.AzSNP
		if w.VCEK == "" {
			kind = evidence.AzTDX
		}
		st, err := verify.Evidence(kind, data, thisJanuary)
		if err != nil {
			f.Fatal(err)
		}
		genuine[st.PCR[0]] = true
		registers[string(kind)] = w.TPM.PCRs
		f.Add(string(kind), w.Version, w.TPM.Message, w.TPM.Signature, w.HCL, w.VCEK+w.Quote)
	}
	f.Fuzz(func(t *testing.T, kind string, version int, message, signature, hcl, hardware string) {
		data, err := json.Marshal(wire{version, quote{signature, message, registers[kind]}, hcl, hardware, hardware})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := verify.Evidence(evidence.Kind(kind), data, thisJanuary); err == nil && !genuine[st.PCR[0]] {
			t.Errorf("accepted forged evidence: %+v", st)
		}
		if f, err := verify.Open(data); err == nil {
			_, _ = f.Describe()
		}
	})
}

// FuzzTPM reads quotes and signatures in a TPM's own structures.
func FuzzTPM(f *testing.F) {
	for _, curve := range []bool{false, true} {
		e, err := evidencetest.NewTPM(f, curve).Collect(f.Context(), evidence.ReportData{})
		if err != nil {
			f.Fatal(err)
		}
		var w tpmParts
		if err := json.Unmarshal(e.Data, &w); err != nil {
			f.Fatal(err)
		}
		f.Add(w.Quote.Message, w.Quote.Signature, w.Key)
	}
	f.Fuzz(func(t *testing.T, message, signature, key []byte) {
		w := tpmParts{Key: key}
		w.Quote.Message, w.Quote.Signature, w.Quote.PCRs = message, signature, make([]string, verify.PCRs)
		for i := range w.Quote.PCRs {
			w.Quote.PCRs[i] = "0000000000000000000000000000000000000000000000000000000000000000"
		}
		data, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := verify.Evidence(evidence.TPM, data, verify.Options{}); err == nil && (!st.HostControlled || st.PCR == nil) {
			t.Errorf("taken for a platform: %+v", st)
		}
	})
}

// tpmParts is the evidence of a TPM alone.
type tpmParts struct {
	Quote struct {
		Message   []byte   `json:"message"`
		Signature []byte   `json:"signature"`
		PCRs      []string `json:"pcrs"`
	} `json:"tpm_quote"`
	Key []byte `json:"ak_public"`
}
