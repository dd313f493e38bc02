package devkbs

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/verify"
)

func TestParseRules(t *testing.T) {
	long := strings.Repeat("ab", 48)
	for name, c := range map[string]struct{ text, fault string }{
		"empty":           {"", ""},
		"all conditions":  {"[[resource]]\npath = \"a/*/?\"\ntee = [\"tdx\", \"snp\"]\nmeasurement = [\"" + long + "\"]\ninitdata = [\"" + long + "\"]\nrtmr = { 1 = \"" + long + "\" }\ndebug = true\n", ""},
		"no path":         {"[[resource]]\n", "repository/type/tag"},
		"short path":      {"[[resource]]\npath = \"a/b\"\n", "repository/type/tag"},
		"no pattern":      {"[[resource]]\npath = \"a/b/[\"\n", "repository/type/tag"},
		"misspelt":        {"[[resource]]\npath = \"*/*/*\"\nmeasurment = []\n", "unknown key resource.measurment"},
		"unknown TEE":     {"[[resource]]\npath = \"*/*/*\"\ntee = [\"sgx\"]\n", "sgx"},
		"measurement":     {"[[resource]]\npath = \"*/*/*\"\nmeasurement = [\"abcd\"]\n", "48 bytes"},
		"initdata":        {"[[resource]]\npath = \"*/*/*\"\ninitdata = [\"abcd\"]\n", "digest"},
		"register":        {"[[resource]]\npath = \"*/*/*\"\nrtmr = { 4 = \"" + long + "\" }\n", "register"},
		"TPM":             {"[[resource]]\npath = \"*/*/*\"\ntee = [\"tpm\", \"az-snp-vtpm\", \"az-tdx-vtpm\"]\nak = [\"" + long[:64] + "\"]\npcr = { 8 = \"" + long[:64] + "\" }\n", ""},
		"PCR":             {"[[resource]]\npath = \"*/*/*\"\npcr = { 24 = \"" + long[:64] + "\" }\n", "from 0 to 23"},
		"PCR's name":      {"[[resource]]\npath = \"*/*/*\"\npcr = { 08 = \"" + long[:64] + "\" }\n", "from 0 to 23"},
		"key":             {"[[resource]]\npath = \"*/*/*\"\nak = [\"abcd\"]\n", "ak is not"},
		"TCB":             {"[[resource]]\npath = \"*/*/*\"\ntcb_status = [\"UpToDate\"]\n", ""},
		"TCB's word":      {"[[resource]]\npath = \"*/*/*\"\ntcb_status = [\"Revoked\"]\n", "not one of UpToDate"},
		"malformed":       {"[[resource]\n", "line 2"},
		"of another type": {"resource = 1\n", "resource"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRules([]byte(c.text))
			if c.fault == "" && err != nil || c.fault != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("got %v, want %q", err, c.fault)
			}
		})
	}
}

func TestRules(t *testing.T) {
	m := strings.Repeat("ab", 48)
	st := verify.Statement{TEE: evidence.TDX, InitData: make([]byte, 48)}
	for i := range st.Measurement {
		st.Measurement[i], st.RTMR[1][i] = 0xab, 0xab
	}
	copy(st.InitData, "\xcd\xcd")
	sha256 := "cdcd" + strings.Repeat("00", 30)
	for name, c := range map[string]struct{ rules, path, reason string }{
		"first fitting decides": {"[[resource]]\npath = \"a/b/*\"\ntee = [\"snp\"]\n[[resource]]\npath = \"*/*/*\"\n", "a/b/c", "rule 1: platform is tdx"},
		"later one":             {"[[resource]]\npath = \"a/b/*\"\ntee = [\"snp\"]\n[[resource]]\npath = \"*/*/*\"\n", "a/c/c", ""},
		"none":                  {"", "a/b/c", "no rule"},
		"all fit":               {"[[resource]]\npath = \"*/*/*\"\nmeasurement = [\"" + strings.ToUpper(m) + "\"]\ninitdata = [\"" + sha256 + "\"]\nrtmr = { 1 = \"" + m + "\" }\n", "a/b/c", ""},
		"other register":        {"[[resource]]\npath = \"*/*/*\"\nrtmr = { 2 = \"" + m + "\" }\n", "a/b/c", "RTMR2"},
		"other initdata":        {"[[resource]]\npath = \"*/*/*\"\ninitdata = [\"" + m + "\"]\n", "a/b/c", "initdata is cdcd"},
		"unbound for nothing":   {"[[resource]]\npath = \"*/*/*\"\nunbound = true\n", "a/b/c", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := ParseRules([]byte(c.rules))
			if err != nil {
				t.Fatal(err)
			}
			got := rules.deny(c.path, &st)
			if c.reason == "" && got != "" || !strings.Contains(got, c.reason) {
				t.Errorf("deny = %q, want %q", got, c.reason)
			}
		})
	}
}
