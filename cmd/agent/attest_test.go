package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// oneShotRun is how a one-shot role of the program that ships ended.
type oneShotRun struct {
	code     int
	out, err string
}

func runOneShot(t *testing.T, agent string, args ...string) oneShotRun {
	t.Helper()
	return runOneShotOn(t, (*exec.Cmd).Start, agent, args...)
}

// runOneShotOn runs it on hardware that start makes.
func runOneShotOn(t *testing.T, start func(*exec.Cmd) error, agent string, args ...string) oneShotRun {
	t.Helper()
	cmd := exec.Command(agent, args...)
	cmd.Env = []string{}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return oneShotRun{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// sampleSettings are those of an image that takes sample evidence.
func sampleSettings(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(file, []byte("attestation.tee = \"sample\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const (
	ownersKey = "a secret of sixty-one bytes that must not be seen anywhere!!!"
	keyURI    = "kbs:///default/key/1"
)

// TestAttestRole runs the program that ships against brokers of all moods.
func TestAttestRole(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the role needs root")
	}
	agent, settings := buildAgent(t), sampleSettings(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	rules, err := devkbs.ParseRules([]byte("[[resource]]\npath = \"default/key/1\"\ntee = [\"snp\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	keys := evidencetest.Resources(map[string]string{"default/key/1": ownersKey})
	given := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: keys})
	strict := evidencetest.NewKBS(t, devkbs.Options{Resources: keys})
	denying := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: keys, Rules: rules})
	garbage := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: keys})
	garbage.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, ownersKey); return true })
	slow := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: keys})
	slow.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		_ = http.NewResponseController(w).Flush() // also reads the body, without which the end of the caller goes unnoticed
		<-r.Context().Done()
		return true
	})
	tls := evidencetest.NewTLSKBS(t, devkbs.Options{AllowSample: true, Resources: keys})
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, []byte(tls.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(ownersKey))
	told := fmt.Sprintf("%s: 61 bytes, sha256 %x\n", keyURI, sum)
	for name, c := range map[string]struct {
		args []string
		code int
		say  string // in the output, or the code in what went wrong
	}{
		"evidence":           {[]string{"--nonce", "0102"}, 0, `{"svn":"1","report_data":"AQI="}`},
		"decoded":            {[]string{"--decode"}, 0, "smt              nothing is proven"},
		"accepted":           {[]string{"--kbs", given.URL}, 0, "accepts this guest as sample"},
		"released":           {[]string{"--kbs", given.URL, keyURI}, 0, told},
		"over TLS":           {[]string{keyURI, "--kbs", tls.URL, "--kbs-cert", cert}, 0, told},
		"not trusted":        {[]string{"--kbs", tls.URL, keyURI}, 14, "transport/certificate"},
		"evidence refused":   {[]string{"--kbs", strict.URL, keyURI}, 15, "verdict/refused"},
		"denied":             {[]string{"--kbs", denying.URL, keyURI}, 16, "policy/denied"},
		"absent":             {[]string{"--kbs", given.URL, "kbs:///default/key/2"}, 17, "resource/absent"},
		"unreachable":        {[]string{"--kbs", nobody, keyURI}, 14, "transport/refused"},
		"no broker":          {[]string{keyURI}, 14, "transport/config"},
		"garbage":            {[]string{"--kbs", garbage.URL, keyURI}, 14, "transport/reply"},
		"slow":               {[]string{"--kbs", slow.URL, "--timeout", "1s", keyURI}, 14, "transport/timeout"},
		"malformed URL":      {[]string{"--kbs", "broker:8080", keyURI}, 14, "transport/config"},
		"platform not there": {[]string{"--tee", "snp"}, 10, "platform/none"},
		"nonce too long":     {[]string{"--nonce", strings.Repeat("00", 65)}, 2, "64 bytes"},
		"nonce not hex":      {[]string{"--nonce", "xyz"}, 2, "hexadecimal"},
		"cert for nobody":    {[]string{"--kbs-cert", cert, keyURI}, 2, "--kbs"},
		"cert for settings":  {[]string{"--kbs", "config", "--kbs-cert", cert}, 2, "--kbs"},
		"no cert":            {[]string{"--kbs", tls.URL, "--kbs-cert", settings}, 1, "no certificate"},
		"no such flag":       {[]string{"--decde"}, 2, "--help"},
		"no resource":        {[]string{"https://x"}, 2, "kbs://"},
		"output":             {[]string{"-o", "yaml"}, 2, "text or json"},
		"no settings":        {[]string{"-c", "/nonexistent"}, 1, "/nonexistent"},
		"help":               {[]string{"--help"}, 0, "Exit codes: 0 success"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"attest"}, c.args...)
			if !slices.Contains(c.args, "-c") {
				args = append(args, "-c", settings)
			}
			r := runOneShot(t, agent, args...)
			said := r.out
			if c.code != 0 {
				if said = r.err; r.out != "" {
					t.Errorf("a fault on stdout: %q", r.out)
				}
			} else if r.err != "" {
				t.Errorf("stderr: %q", r.err)
			}
			if r.code != c.code || !strings.Contains(said, c.say) {
				t.Errorf("exit code %d, %q, want %d, %q", r.code, said, c.code, c.say)
			}
			if strings.Contains(r.out+r.err, ownersKey) {
				t.Error("the secret is told")
			}
			if c.code >= 10 && !strings.Contains(r.err, "remedy: ") {
				t.Errorf("no remedy: %q", r.err)
			}
		})
	}
}

// shape replaces what differs from run to run by its type.
func shape(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = shape(v[k], k)
		}
	case []any:
		for i := range v {
			v[i] = shape(v[i], "")
		}
	case float64:
		if key == "ms" {
			return "number"
		}
	case string:
		if key == "report_data" || key == "text" || key == "remedy" {
			return "text"
		}
	}
	return v
}

func wantShape(t *testing.T, got, want string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(got), &v); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	text, err := json.Marshal(shape(v, ""))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("shape\n%s, want\n%s", text, want)
	}
}

// TestAttestJSON holds what scripts read.
func TestAttestJSON(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the role needs root")
	}
	agent, settings := buildAgent(t), sampleSettings(t)
	k := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: evidencetest.Resources(map[string]string{"default/key/1": ownersKey})})
	guest := `{"leg":"platform","ms":"number","status":"ok","text":"text"},{"leg":"initdata","ms":"number","status":"ok","text":"text"},` +
		`{"leg":"driver","ms":"number","status":"ok","text":"text"},{"leg":"endorsement","ms":"number","status":"warning","text":"text"}`
	sum := sha256.Sum256([]byte(ownersKey))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"evidence": {[]string{"--decode"}, `{"evidence":{"report_data":"text","svn":"1"},"fields":{"debug":"nothing is proven","initdata":"nothing is proven","measurement":"nothing is proven","report_data":"text","smt":"nothing is proven","tcb":"nothing is proven","tee":"sample","version":"1"},` +
			`"legs":[` + guest + `],"platform":"sample","report_data":"text","result":"ok"}`},
		"released": {[]string{"--kbs", k.URL, keyURI}, `{"legs":[` + guest + `,{"leg":"transport","ms":"number","status":"ok"},{"leg":"verdict","ms":"number","status":"ok"},{"leg":"policy","ms":"number","status":"ok"},{"leg":"resource","ms":"number","status":"ok"}],` +
			`"platform":"sample","resource":{"sha256":"` + hex.EncodeToString(sum[:]) + `","size":61,"uri":"kbs:///default/key/1"},"result":"ok"}`},
		"absent": {[]string{"--kbs", k.URL, "kbs:///default/key/2"}, `{"code":"resource/absent","legs":[` + guest + `,{"leg":"transport","ms":"number","status":"ok"},{"leg":"verdict","ms":"number","status":"ok"},{"leg":"policy","ms":"number","status":"ok"},{"code":"resource/absent","leg":"resource","ms":"number","remedy":"text","status":"fault","text":"text"}],` +
			`"platform":"sample","result":"fault"}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := runOneShot(t, agent, append([]string{"attest", "-o", "json", "-c", settings}, c.args...)...)
			wantShape(t, r.out, c.want)
		})
	}
}

// TestExplain names each leg, the code, and the remedy below it.
func TestExplain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the role needs root")
	}
	agent, settings := buildAgent(t), sampleSettings(t)
	k := evidencetest.NewKBS(t, devkbs.Options{Resources: evidencetest.Resources(nil)})
	r := runOneShot(t, agent, "attest", "-c", settings, "--explain", "--kbs", k.URL, keyURI)
	var words []string
	for line := range strings.Lines(r.out) {
		if f := strings.Fields(line); len(f) > 1 {
			words = append(words, f[0]+" "+f[1])
		}
	}
	want := []string{"LEG STATUS", "platform ok", "initdata ok", "driver ok", "endorsement warning", "transport ok", "verdict fault", "remedy: look", "policy skipped", "resource skipped"}
	if !slices.Equal(words, want) || !strings.Contains(r.out, string(evidence.VerdictRefused)) || r.code != 15 {
		t.Errorf("exit code %d\n%s", r.code, r.out)
	}
}

// attestBeside runs the roles while the service serves on the same hardware.
func (m *machineOf) attestBeside(agent string) {
	m.t.Helper()
	r := runOneShotOn(m.t, m.hw.start, agent, "attest", "-c", m.config, "--nonce", strings.Repeat("ab", 64))
	kind := evidence.SNP
	if strings.Contains(r.out, `"quote"`) {
		kind = evidence.TDX
	}
	st, err := verify.Evidence(kind, []byte(r.out), m.hw.Trust())
	if err != nil || !bytes.Equal(st.ReportData[:], bytes.Repeat([]byte{0xab}, 64)) || r.code != 0 {
		m.t.Errorf("evidence: exit code %d, %v, %.200q, %s", r.code, err, r.out, r.err)
	}
	r = runOneShotOn(m.t, m.hw.start, agent, "attest", "-c", m.config, "--decode", "--explain", keyURI)
	for _, want := range []string{"debug            false", "tcb", "smt", hex.EncodeToString(measured[:]), "resource     ok", "bytes, sha256", "bound to the hardware"} {
		if !strings.Contains(r.out, want) {
			m.t.Errorf("lacks %q: %d\n%s\n%s", want, r.code, r.out, r.err)
		}
	}
	if r.code != 0 || strings.Contains(r.out+r.err, evidencetest.OwnerText) {
		m.t.Errorf("exit code %d\n%s\n%s", r.code, r.out, r.err)
	}
	r = runOneShotOn(m.t, m.hw.start, agent, "doctor", "-c", m.config, "-o", "json")
	var d struct {
		Checks []struct{ Check, Status, Text string }
	}
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		m.t.Fatalf("doctor: %v in %s, %s", err, r.out, r.err)
	}
	seen := map[string]string{}
	for _, c := range d.Checks {
		seen[c.Check] = c.Status + ": " + c.Text
	}
	for check, want := range map[string]string{"platform": "ok: " + string(kind), "initdata": "ok: sha384", "key broker": "warning: "} {
		if !strings.HasPrefix(seen[check], want) {
			m.t.Errorf("doctor says of the %s %q, want %q", check, seen[check], want)
		}
	}
	if !strings.Contains(seen["driver"], "bytes of evidence") {
		m.t.Errorf("doctor says of the driver %q", seen["driver"])
	}
}
