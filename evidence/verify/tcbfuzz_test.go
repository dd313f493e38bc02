package verify_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// FuzzTCB evaluates TCB info and an identity of the quoting enclave that are
// signed, whatever they say, for a platform with the versions given. What comes
// of it is a status that is known and not Revoked.
func FuzzTCB(f *testing.F) {
	level, isv := evidencetest.Level, evidencetest.ISVLevel
	for _, c := range []struct {
		svn, now []byte
		levels   []any
		module   []any
		enclave  []any
	}{
		{nil, nil, []any{level("UpToDate", 0)}, nil, []any{isv("UpToDate", 4)}},
		{nil, nil, []any{level("UpToDate", 1), level("Revoked", 0)}, nil, []any{isv("UpToDate", 4)}},
		{nil, nil, []any{level("ConfigurationNeeded", 0)}, nil, []any{isv("OutOfDate", 0)}},
		{[]byte{5, 1}, []byte{6, 1}, []any{level("UpToDate", 0)}, []any{isv("UpToDate", 6), isv("OutOfDate", 5)}, []any{isv("UpToDate", 4)}},
		{[]byte{0, 0, 1}, []byte{0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7}, []any{level("UpToDate", 7), level("OutOfDateConfigurationNeeded", 0)}, nil, []any{isv("SWHardeningNeeded", 0)}},
		{[]byte{0, 0, 1}, []byte{0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7}, []any{level("ConfigurationNeeded", 7), level("OutOfDate", 0)}, nil, []any{isv("UpToDate", 4)}},
		{[]byte{9, 2}, nil, nil, []any{isv("UpToDate", 6)}, nil},
	} {
		pcs := evidencetest.NewPCS(f, evidencetest.NewTDX(f))
		module := map[string]any{"id": "TDX_01", "tcbLevels": c.module}
		for _, k := range []string{"mrsigner", "attributes", "attributesMask"} {
			module[k] = pcs.TCBInfo["tdxModule"].(map[string]any)[k]
		}
		pcs.TCBInfo["tcbLevels"], pcs.TCBInfo["tdxModuleIdentities"], pcs.Identity["tcbLevels"] = c.levels, []any{module}, c.enclave
		info, err1 := json.Marshal(pcs.TCBInfo)
		identity, err2 := json.Marshal(pcs.Identity)
		if err1 != nil || err2 != nil {
			f.Fatal(err1, err2)
		}
		f.Add(c.svn, c.now, info, identity)
	}
	p := evidencetest.NewTDX(f)
	p.Version = 5
	roots := p.Roots()
	f.Fuzz(func(t *testing.T, svn, now, info, identity []byte) {
		pcs := evidencetest.NewPCS(t, p)
		dates := []string{"issueDate", "nextUpdate"}
		for to, text := range map[*map[string]any][]byte{&pcs.TCBInfo: info, &pcs.Identity: identity} {
			said := map[string]any{}
			if json.Unmarshal(text, &said) != nil || said == nil {
				return
			}
			for _, d := range dates {
				said[d] = (*to)[d]
			}
			*to = said
		}
		p.SVN, p.SVN2 = [16]byte{}, [16]byte{}
		copy(p.SVN[:], svn)
		copy(p.SVN2[:], now)
		c := new(verify.Collateral)
		for _, data := range pcs.Answers() {
			if err := c.Add(data); err != nil {
				return
			}
		}
		raw, err := p.Quote([64]byte{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := verify.Quote(raw, verify.Options{TDXRoots: roots, Collateral: c})
		if err == nil && !slices.Contains(verify.TCBStatuses, st.TCBStatus) {
			t.Errorf("status %q", st.TCBStatus)
		}
	})
}
