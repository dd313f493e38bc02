package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/agent/doctor"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// machineChecks depend on the machine of the test: their statuses are masked.
var machineChecks = []string{"kernel", "clock", "entropy", "cgroups", "memory", "space of /run", "space for images", "vsock"}

// doctorShape is what scripts read of doctor -o json: names in their order,
// statuses and remedies. Of checks that look at the machine a name is left.
func doctorShape(t *testing.T, out string) string {
	t.Helper()
	var d struct {
		Status doctor.Status
		Checks []map[string]string
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var findings []doctor.Finding
	var shape strings.Builder
	for _, c := range d.Checks {
		status := doctor.Status(c["status"])
		if status != doctor.OK && status != doctor.Warning && status != doctor.Fault || c["text"] == "" {
			t.Errorf("%v has no status or no text", c)
		}
		if (c["remedy"] != "") != (status != doctor.OK) {
			t.Errorf("%v: a remedy belongs to what is not ok, and to nothing else", c)
		}
		findings = append(findings, doctor.Finding{Status: status})
		line := []string{c["check"], c["status"], c["remedy"]}
		for _, name := range machineChecks {
			if name == c["check"] {
				line = []string{name, "*"}
			}
		}
		shape.WriteString(strings.TrimRight(strings.Join(line, " | "), " |") + "\n")
		delete(c, "remedy")
		if len(c) != 3 {
			t.Errorf("members %v", c)
		}
	}
	if want := doctor.Worst(findings); d.Status != want {
		t.Errorf("status %s, want %s", d.Status, want)
	}
	return shape.String()
}

// TestDoctorJSON holds what scripts read, and the exit code, in
// testdata/doctor.golden.
func TestDoctorJSON(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the role needs root")
	}
	agent, dir := buildAgent(t), t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	policy := filepath.Join(dir, "policy.rego")
	if err := os.WriteFile(policy, []byte("package agent_policy\ndefault AllowRequestsFailingPolicy := false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := fmt.Sprintf("policy_file = %q\n", policy)
	var got strings.Builder
	for _, c := range []struct{ name, config string }{
		{"sample, unbound", common + "[attestation]\ntee = \"sample\"\nallow_unbound_initdata = true\n"},
		{"a platform that is not there", common + "[attestation]\ntee = \"snp\"\n"},
		{"no policy", fmt.Sprintf("policy_file = %q\n[attestation]\ntee = \"sample\"\n", filepath.Join(dir, "absent"))},
		{"no broker listens", common + fmt.Sprintf("[attestation]\ntee = \"sample\"\ntoken_configs.kbs.url = %q\n", nobody)},
		{"a setting that is none", common + "[attestation]\ntee = 1\n"},
	} {
		file := filepath.Join(dir, "agent.toml")
		if err := os.WriteFile(file, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runOneShot(t, agent, "doctor", "-o", "json", "-c", file)
		shape := strings.ReplaceAll(doctorShape(t, r.out), dir, "DIR")
		want := 0 // as the status says, which is that of the worst finding
		if strings.Contains(r.out, `"status": "fault"`) {
			want = 1
		}
		if r.code != want || r.err != "" {
			t.Errorf("%s: exit code %d, want %d, stderr %q", c.name, r.code, want, r.err)
		}
		fmt.Fprintf(&got, "# %s\n%s\n", c.name, shape)
	}
	golden, err := os.ReadFile("testdata/doctor.golden")
	if err != nil || got.String() != string(golden) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got.String(), golden)
	}
}

// TestDoctorUsage tells wrong usage from a fault.
func TestDoctorUsage(t *testing.T) {
	agent := buildAgent(t)
	for args, want := range map[string]int{"--help": 0, "extra": 2, "--nothing": 2, "-o yaml": 2, "--timeout 0s": 2} {
		r := runOneShot(t, agent, append([]string{"doctor"}, strings.Fields(args)...)...)
		if r.code != want || (want == 0) == (r.out == "") || (want == 0) != (r.err == "") {
			t.Errorf("%s: exit code %d, want %d; %q, %q", args, r.code, want, r.out, r.err)
		}
	}
}

// TestDoctorDebug warns of each platform whose evidence tells of debug.
func TestDoctorDebug(t *testing.T) {
	if !root() {
		t.Skip("the check needs root")
	}
	collect := func(c evidence.Collector) evidence.Evidence {
		e, err := c.Collect(t.Context(), evidence.ReportData{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	az, azt := evidencetest.NewAzureSNP(t), evidencetest.NewAzureTDX(t)
	for _, debug := range []bool{false, true} {
		az.SNP.Debug, azt.TDX.Debug = debug, debug
		for _, g := range []evidence.Collector{az, azt} {
			s := &survey{oneShot: &oneShot{process: &process{platform: g}}, walk: func() {}, evidence: collect(g)}
			f := s.driver(t.Context())
			if warned := f.Status == doctor.Warning && strings.Contains(f.Text, "debug"); warned != debug {
				t.Errorf("%s, debug %t: %s, %s", g.Kind(), debug, f.Status, f.Text)
			}
		}
	}
	s := &survey{oneShot: &oneShot{process: &process{platform: challengedPlatform{tee.Sample()}}}, walk: func() {}}
	if f := s.driver(t.Context()); f.Status != doctor.OK || !strings.Contains(f.Text, "debug unknown") {
		t.Errorf("a platform that answers a verifier: %s, %s", f.Status, f.Text)
	}
}

// challengedPlatform answers the challenge of a verifier alone.
type challengedPlatform struct{ evidence.Collector }

func (c challengedPlatform) CollectFor(ctx context.Context, _ string, rd evidence.ReportData) (evidence.Evidence, error) {
	return c.Collect(ctx, rd)
}
