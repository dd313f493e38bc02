package verify_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// The fuzzer cannot sign, so whatever is accepted has to say what it said
// before it was changed.

func FuzzQuote(f *testing.F) {
	genuine := map[[48]byte]bool{}
	for _, c := range quotes {
		raw := evidencetest.Fixture(f, c.file)
		st, err := verify.Quote(raw, verify.Options{Now: day(c.at)})
		if err != nil {
			f.Fatal(err)
		}
		genuine[st.Measurement] = true
		f.Add(raw)
	}
	now := verify.Options{Now: day("2026-06-15")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if st, err := verify.Quote(raw, now); err == nil && !genuine[st.Measurement] {
			t.Errorf("accepted a forged quote: %+v", st)
		}
	})
}

func FuzzReport(f *testing.F) {
	genuine := map[[48]byte]bool{}
	for _, c := range reports {
		raw := evidencetest.Fixture(f, c.file)[c.skip:]
		raw = raw[:1184]
		vek := der(f, c.vek)
		st, err := verify.Report(raw, verify.Certs{VEK: vek}, verify.Options{Now: day(c.at)})
		if err != nil {
			f.Fatal(err)
		}
		genuine[st.Measurement] = true
		f.Add(raw, vek)
	}
	now := verify.Options{Now: day("2025-06-15")}
	f.Fuzz(func(t *testing.T, raw, vek []byte) {
		if st, err := verify.Report(raw, verify.Certs{VEK: vek}, now); err == nil && !genuine[st.Measurement] {
			t.Errorf("accepted a forged report: %+v", st)
		}
	})
}

func FuzzEvidence(f *testing.F) {
	recorded := evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json")
	now := verify.Options{Now: time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)}
	genuine, err := verify.Evidence(evidence.SNP, recorded, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(evidence.SNP), recorded)
	f.Add(string(evidence.TDX), []byte(`{"cc_eventlog":"AAAA","quote":"BAACAIEAAAA="}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		st, err := verify.Evidence(evidence.Kind(kind), data, now)
		if err == nil && (st.Measurement != genuine.Measurement || !bytes.Equal(st.InitData, genuine.InitData)) {
			t.Errorf("accepted forged evidence: %+v", st)
		}
	})
}
