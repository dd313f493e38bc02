package devkbs_test

import (
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// TestTCBRules gives to a platform by the word that Intel's collateral has for
// its age, and to none whose age nobody judged.
func TestTCBRules(t *testing.T) {
	const rule = "[[resource]]\npath = \"*/*/*\"\ntcb_status = [\"UpToDate\", \"SWHardeningNeeded\"]\n"
	for status, want := range map[string]string{"UpToDate": "200", "SWHardeningNeeded": "200", "OutOfDate": "401", "": "401"} {
		vm := evidencetest.NewAzureTDX(t)
		guest := vtpm{vm, vm.TPM, verify.Options{TDXRoots: vm.TDX.Roots()}}
		guest.tpm.Extend(8, documentDigest)
		if status != "" {
			pcs := evidencetest.NewPCS(t, vm.TDX)
			pcs.TCBInfo["tcbLevels"] = []any{evidencetest.Level(status, 0)}
			guest.trust.Collateral = new(verify.Collateral)
			for name, file := range pcs.Answers() {
				if err := guest.trust.Collateral.Add(file); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if got := guest.attested(t, rule, nil); got != want {
			t.Errorf("status %q: %s, want %s", status, got, want)
		}
		if got := guest.attested(t, "", nil); got != "200" {
			t.Errorf("status %q without rules: %s", status, got)
		}
	}
}
