package main

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/evidence"
	document "github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// registered is a platform with registers, whose evidence is the sample's.
type registered struct {
	evidence.Collector
	dir  string
	rtmr [4][48]byte
	fail error // of further extensions

	extending func() // if not nil, called before each

	extended chan struct{} // receives after each, when not nil
}

func (m *registered) OpenLog(string) (*measure.Log, error) {
	return measure.OpenLog(m.dir, measure.TDX(m))
}

func (m *registered) RTMR(index int) ([]byte, error) {
	now := m.rtmr[index]
	return now[:], nil
}

func (m *registered) Extend(index int, digest []byte) error {
	if m.extending != nil {
		m.extending()
	}
	if m.fail != nil {
		return m.fail
	}
	m.rtmr[index] = sha512.Sum384(append(m.rtmr[index][:], digest...))
	if m.extended != nil {
		m.extended <- struct{}{}
	}
	return nil
}

// lines are the entries of a log.
func lines(t *testing.T, l *measure.Log) []string {
	t.Helper()
	var out []string
	err := l.View(func(log []byte) error {
		for _, part := range strings.Split(string(log), "LEAA")[1:] {
			n := int(part[0]) | int(part[1])<<8
			out = append(out, part[4:4+n])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func recording(t *testing.T) (*process, *registered) {
	t.Helper()
	m := &registered{Collector: tee.Sample(), dir: t.TempDir()}
	p := &process{platform: m, config: config.Default()}
	p.config.Attestation.EventLog.Enable = true
	var err error
	p.document, err = document.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n"))
	if err != nil {
		t.Fatal(err)
	}
	p.config.Console.Enabled, p.bound = true, true
	if p.ledger, err = p.openLedger(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p, m
}

func TestLedger(t *testing.T) {
	p, m := recording(t)
	engine := policy.New()
	if err := engine.Replace(t.Context(), allowAll); err != nil {
		t.Fatal(err)
	}
	rules := imageRules{engine, p.ledger}
	if err := rules.Judge(t.Context(), facts()); err != nil {
		t.Fatal(err)
	}
	if err := (recordedPolicy{engine, p.ledger}).Replace(t.Context(), allowAll); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`github.com/coffer-cc/coffer Initdata {"algorithm":"sha256","bound":true,"digest":"`,
		`github.com/coffer-cc/coffer Debug {"feature":"debug_console"}`,
		`github.com/confidential-containers PullImage {"image":"` + facts().Image.Reference + `", "digest":"` + facts().Image.ManifestDigest + `"}`,
		`github.com/coffer-cc/coffer SetPolicy {"algorithm":"sha256","digest":"`,
	}
	got := lines(t, p.ledger.log)
	if len(got) != len(want) {
		t.Fatalf("recorded %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("entry %d is %q, want %q", i, got[i], want[i])
		}
	}
	if m.rtmr[3] == [48]byte{} || m.rtmr[2] != [48]byte{} {
		t.Error("another register than the configured one was extended")
	}
}

// Of policies that come at once the one recorded last is in force, also when it
// takes less time to compile.
func TestLedgerOrder(t *testing.T) {
	p, m := recording(t)
	m.extended = make(chan struct{}, 2)
	engine := policy.New()
	first := &strings.Builder{}
	first.WriteString("package agent_policy\ndefault GetMetricsRequest := false\n")
	for i := range 3000 {
		fmt.Fprintf(first, "r%d := %d\n", i, i)
	}
	done := make(chan error, 2)
	replace := func(text string) { done <- recordedPolicy{engine, p.ledger}.Replace(t.Context(), text) }
	go replace(first.String())
	<-m.extended
	go replace("package agent_policy\ndefault GetMetricsRequest := true\n")
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	d, err := engine.Allow(t.Context(), "GetMetricsRequest", policy.JSON([]byte("{}")))
	if err != nil || !d.Allowed {
		t.Errorf("the one recorded first is in force: %v, %v", d, err)
	}
}

// Evidence that is collected just before an extension belongs to the old epoch,
// also when the extension then fails.
func TestLedgerEpochBeginsAfterTheExtension(t *testing.T) {
	p, m := recording(t)
	for _, fail := range []error{nil, errors.New("the device is gone")} {
		before, during := p.ledger.epoch.Load(), uint64(0)
		m.fail, m.extending = fail, func() { during = p.ledger.epoch.Load() }
		if err := p.ledger.pulled(t.Context(), facts()); !errors.Is(err, fail) {
			t.Errorf("pulled: %v, want %v", err, fail)
		}
		if after := p.ledger.epoch.Load(); during != before || after != before+1 {
			t.Errorf("epoch %d before, %d while the register is extended, %d after", before, during, after)
		}
	}
}

// What cannot be recorded does not take effect.
func TestLedgerFails(t *testing.T) {
	p, m := recording(t)
	engine := policy.New()
	if err := engine.Replace(t.Context(), allowAll); err != nil {
		t.Fatal(err)
	}
	m.fail = errors.New("the device is gone")
	if err := (imageRules{engine, p.ledger}).Judge(t.Context(), facts()); !errors.Is(err, m.fail) {
		t.Errorf("an image that is not recorded: %v", err)
	}
	if err := (recordedPolicy{engine, p.ledger}).Replace(t.Context(), "package agent_policy\n"); !errors.Is(err, m.fail) {
		t.Errorf("a policy that is not recorded: %v", err)
	}
	if d, err := engine.Allow(t.Context(), "GetMetricsRequest", policy.JSON([]byte("{}"))); err != nil || !d.Allowed {
		t.Errorf("and it took effect: %v, %v", d, err)
	}
}

func TestLedgerLeavesNoTraceOfNoPolicy(t *testing.T) {
	p, _ := recording(t)
	before, epoch := len(lines(t, p.ledger.log)), p.ledger.epoch.Load()
	if err := (recordedPolicy{policy.New(), p.ledger}).Replace(t.Context(), "no policy"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Replace: %v", err)
	}
	if len(lines(t, p.ledger.log)) != before || p.ledger.epoch.Load() != epoch {
		t.Error("it left a trace")
	}
}

func TestLedgerWithoutRegisters(t *testing.T) {
	p := &process{platform: tee.Sample(), config: config.Default()}
	p.config.Attestation.EventLog.Enable = true
	if _, err := p.openLedger(context.Background()); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "enable_eventlog") {
		t.Errorf("openLedger: %v", err)
	}
	p.config.Attestation.EventLog.Enable = false
	l, err := p.openLedger(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	engine := policy.New()
	if err := (recordedPolicy{engine, l}).Replace(t.Context(), allowAll); err != nil {
		t.Fatal(err)
	}
	after := l.epoch.Load()
	if err := (imageRules{engine, l}).Judge(t.Context(), facts()); err != nil || after == 0 || l.epoch.Load() != after {
		t.Errorf("%v, epochs %d and %d: a policy makes a verdict old, an image alone does not", err, after, l.epoch.Load())
	}
}

// onTPM keeps its log in PCRs.
type onTPM struct{ *registered }

func (m onTPM) OpenLog(string) (*measure.Log, error) {
	return measure.OpenLog(m.dir, measure.TPM(m.registered))
}

// A guest that is to record does not start where no entry could be recorded.
func TestLedgerOnTPM(t *testing.T) {
	for pcr, takes := range map[uint32]bool{8: false, 9: true, 10: false, 11: true, 15: true, 16: false, 17: false, 23: false} {
		p := &process{platform: onTPM{&registered{Collector: tee.Sample(), dir: t.TempDir()}}, config: config.Default()}
		p.config.Attestation.EventLog.Enable = true
		p.config.Attestation.EventLog.PCR = pcr
		_, err := p.openLedger(t.Context())
		if takes != (err == nil) || err != nil && (evidence.CodeOf(err) != evidence.DriverRegisters || !strings.Contains(err.Error(), "init_pcr")) {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
}

func TestAttestedDevices(t *testing.T) {
	ds, err := attestedDevices([]string{"sampledevice", "nvidia=/run/nvidia.sock"})
	if err != nil || len(ds) != 2 || ds[0].Kind() != evidence.SampleDevice || ds[1].Kind() != evidence.NVIDIA {
		t.Errorf("%v, %v", ds, err)
	}
	for _, bad := range []string{"", "nvidia", "nvidia=", "=/run/x", "nvidia=run/x"} {
		if _, err := attestedDevices([]string{bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
