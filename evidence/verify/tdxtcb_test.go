package verify_test

import (
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// collateralOf is what a service answers.
func collateralOf(t *testing.T, pcs *evidencetest.PCS) *verify.Collateral {
	t.Helper()
	c := new(verify.Collateral)
	for name, data := range pcs.Answers() {
		if err := c.Add(data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return c
}

// TestTCBStatus goes through what Intel can say of a platform, in both versions
// of quotes.
func TestTCBStatus(t *testing.T) {
	modules := func(level ...any) any {
		module := map[string]any{"id": "TDX_01", "tcbLevels": level}
		for _, k := range []string{"mrsigner", "attributes", "attributesMask"} {
			module[k] = evidencetest.NewPCS(t, evidencetest.NewTDX(t)).TCBInfo["tdxModule"].(map[string]any)[k]
		}
		return []any{module}
	}
	levels := func(list ...any) func(*evidencetest.TDX, *evidencetest.PCS) {
		return func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.TCBInfo["tcbLevels"] = list }
	}
	level, isv := evidencetest.Level, evidencetest.ISVLevel
	for name, c := range map[string]struct {
		set  func(*evidencetest.TDX, *evidencetest.PCS)
		want string // a status, or what the refusal says
	}{
		"up to date":         {func(*evidencetest.TDX, *evidencetest.PCS) {}, verify.UpToDate},
		"second level":       {levels(level("UpToDate", 1), level("OutOfDate", 0)), verify.OutOfDate},
		"hardening":          {levels(level("SWHardeningNeeded", 0)), verify.SWHardeningNeeded},
		"revoked":            {levels(level("UpToDate", 1), level("Revoked", 0)), `TCB status is "Revoked"`},
		"unknown status":     {levels(level("Splendid", 0)), `TCB status is "Splendid"`},
		"below all":          {levels(level("UpToDate", 2), level("OutOfDate", 1)), "below every TCB level"},
		"no levels":          {levels(), "below every TCB level"},
		"level of few parts": {levels(map[string]any{"tcb": map[string]any{}, "tcbStatus": "UpToDate"}), "below every TCB level"},
		"old quoting enclave": {func(_ *evidencetest.TDX, s *evidencetest.PCS) {
			s.Identity["tcbLevels"] = []any{isv("UpToDate", 5), isv("OutOfDate", 4)}
			s.TCBInfo["tcbLevels"] = []any{level("ConfigurationNeeded", 0)}
		}, verify.OutOfDateConfigurationNeeded},
		"older quoting enclave": {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Identity["tcbLevels"] = []any{isv("UpToDate", 5)} }, "below every"},
		"revoked enclave":       {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Identity["tcbLevels"] = []any{isv("Revoked", 0)} }, `"Revoked"`},
		"another enclave":       {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Identity["isvprodid"] = 1 }, "quoting enclave is not"},
		"enclave's attributes":  {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Identity["attributes"] = strings.Repeat("0", 32) }, "quoting enclave is not"},
		"enclave's selection":   {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Identity["miscselect"] = "00000001" }, "quoting enclave is not"},
		"another PCE":           {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.TCBInfo["pceId"] = "0001" }, "PCE 0001"},
		"another family":        {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.TCBInfo["fmspc"] = "000000000000" }, "is missing"},
		"of SGX":                {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.TCBInfo["id"] = "SGX" }, "is missing"},
		"next version":          {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.TCBInfo["version"] = 4 }, "version 4"},
		"another module": {func(_ *evidencetest.TDX, s *evidencetest.PCS) {
			module := maps.Clone(s.TCBInfo["tdxModule"].(map[string]any))
			module["mrsigner"] = strings.Repeat("01", 48)
			s.TCBInfo["tdxModule"] = module
		}, "TDX module is not Intel's"},
		"module of its own": {func(p *evidencetest.TDX, s *evidencetest.PCS) {
			p.SVN, s.TCBInfo["tdxModuleIdentities"] = [16]byte{5, 1}, modules(isv("UpToDate", 5))
		}, verify.UpToDate},
		"old module": {func(p *evidencetest.TDX, s *evidencetest.PCS) {
			p.SVN, s.TCBInfo["tdxModuleIdentities"] = [16]byte{4, 1}, modules(isv("UpToDate", 5), isv("OutOfDate", 4))
		}, verify.OutOfDate},
		"older module": {func(p *evidencetest.TDX, s *evidencetest.PCS) {
			p.SVN, s.TCBInfo["tdxModuleIdentities"] = [16]byte{3, 1}, modules(isv("UpToDate", 5))
		}, "module is below every"},
		"unknown module": {func(p *evidencetest.TDX, s *evidencetest.PCS) {
			p.SVN, s.TCBInfo["tdxModuleIdentities"] = [16]byte{5, 2}, modules(isv("UpToDate", 5))
		}, "major version 2"},
		"revoked PCK":    {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.Revoke = []*big.Int{big.NewInt(3)} }, `"Intel SGX PCK Certificate" is revoked`},
		"revoked issuer": {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.RevokeCA = []*big.Int{big.NewInt(2)} }, `"Intel SGX PCK Platform CA" is revoked`},
		"revoked signer": {func(_ *evidencetest.TDX, s *evidencetest.PCS) { s.RevokeCA = []*big.Int{big.NewInt(4)} }, `"Intel SGX TCB Signing" is revoked`},
	} {
		for _, version := range []uint16{4, 5} {
			p := evidencetest.NewTDX(t)
			p.Version = version
			pcs := evidencetest.NewPCS(t, p)
			c.set(p, pcs)
			checkStatus(t, name, p, collateralOf(t, pcs), c.want)
		}
	}
}

func checkStatus(t *testing.T, name string, p *evidencetest.TDX, collateral *verify.Collateral, want string) {
	t.Helper()
	raw, err := p.Quote([64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := verify.Quote(raw, verify.Options{TDXRoots: p.Roots(), Collateral: collateral})
	switch {
	case err != nil && !strings.Contains(err.Error(), want):
		t.Errorf("%s, version %d: %v, want %q", name, p.Version, err, want)
	case err == nil && (st.TCBStatus != want || fact(st, "tcb_status") != want):
		t.Errorf("%s, version %d: status %q, want %q", name, p.Version, st.TCBStatus, want)
	}
}

// TestRelaunch is of a TD on a platform that was updated under it, which only
// the newer body tells.
func TestRelaunch(t *testing.T) {
	for _, c := range []struct{ old, now, want string }{
		{"OutOfDate", "UpToDate", verify.TDRelaunchAdvised},
		{"OutOfDate", "ConfigurationNeeded", verify.TDRelaunchAdvisedConfigurationNeeded},
		{"OutOfDateConfigurationNeeded", "UpToDate", verify.TDRelaunchAdvisedConfigurationNeeded},
		{"OutOfDate", "OutOfDate", verify.OutOfDate},
		{"Revoked", "UpToDate", `"Revoked"`},
	} {
		p := evidencetest.NewTDX(t)
		p.Version = 5
		for i := range p.SVN2 {
			p.SVN2[i] = 7
		}
		p.SVN2[1] = 0
		pcs := evidencetest.NewPCS(t, p)
		pcs.TCBInfo["tcbLevels"] = []any{evidencetest.Level(c.now, 7), evidencetest.Level(c.old, 0)}
		checkStatus(t, c.old+" and "+c.now, p, collateralOf(t, pcs), c.want)
	}
	p := evidencetest.NewTDX(t)
	p.Version, p.SVN = 5, [16]byte{2: 5}
	for i := 2; i < len(p.SVN2); i++ {
		p.SVN2[i] = 2
	}
	pcs := evidencetest.NewPCS(t, p)
	pcs.TCBInfo["tcbLevels"] = []any{evidencetest.Level("UpToDate", 2), evidencetest.Level("OutOfDate", 0)}
	checkStatus(t, "versions that went back", p, collateralOf(t, pcs), verify.OutOfDate)
}

// TestClientToolFile reads all of it from one file, and prefers what was
// evaluated later.
func TestClientToolFile(t *testing.T) {
	p := evidencetest.NewTDX(t)
	pcs := evidencetest.NewPCS(t, p)
	c := new(verify.Collateral)
	if err := c.Add(pcs.ClientToolFile()); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, "one file", p, c, verify.UpToDate)
	pcs.TCBInfo["tcbEvaluationDataNumber"] = 21
	pcs.TCBInfo["tcbLevels"] = []any{evidencetest.Level("OutOfDate", 0)}
	if err := c.Add(pcs.Answers()["tcb.json"]); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, "published early", p, c, verify.OutOfDate)
	stranger := evidencetest.NewPCS(t, evidencetest.NewTDX(t))
	raw, err := p.Quote([64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Quote(raw, verify.Options{TDXRoots: p.Roots(), Collateral: collateralOf(t, stranger)}); !errdefs.IsNotFound(err) {
		t.Errorf("collateral under another root: %v", err)
	}
}
