package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		{"no evidence", []string{"decode", vek}, exitFailure, "no evidence"},
		{"no file", []string{"decode", filepath.Join(dir, "none")}, exitNotFound, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ctl(t, nil, append([]string{"evidence"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out+r.err, c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, c.code, c.want, r.out, r.err)
			}
		})
	}
	r := ctl(t, nil, "evidence", "verify", quote, "--at", "2026-01-15", "-o", "json")
	var shown map[string]string
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || shown["debug"] != "true" || shown["tcb_status"] == "" || shown["verdict"] != "genuine" {
		t.Errorf("as JSON: %v, %v", shown, err)
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
