package verify_test

import (
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// FuzzCollateral puts a piece of the fuzzer's in the place of each of Intel's.
// It cannot sign, so a quote that still passes has the recorded status.
func FuzzCollateral(f *testing.F) {
	for _, name := range []string{"tdx/pckcrl", "tdx/rootcrl.der", "tdx/sample_tcbInfo_response", "tdx/sample_qeIdentity_response"} {
		f.Add(evidencetest.Fixture(f, name))
	}
	f.Add([]byte(`{"collaterals":{"tcbinfos":[{"tdx_tcbinfo":{"tcbInfo":{"id":"TDX","fmspc":"50806F000000","version":3,"tcbEvaluationDataNumber":99},"signature":"00"}}],"rootcacrl":"3082"}}`))
	f.Add([]byte("TCB-Info-Issuer-Chain: -----BEGIN%20CERTIFICATE-----%0AMIIC"))
	raw := evidencetest.Fixture(f, "tdx/tdx_quote_4.dat")
	f.Fuzz(func(t *testing.T, data []byte) {
		c := recordedCollateral(t, "tdx/sample_tcbInfo_response")
		if err := c.Add(data); err != nil {
			return
		}
		if st, err := verify.Quote(raw, verify.Options{Now: day("2023-07-01"), Collateral: c}); err == nil && st.TCBStatus != verify.UpToDate {
			t.Errorf("status %q of forged collateral", st.TCBStatus)
		}
	})
}
