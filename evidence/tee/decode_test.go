package tee

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/cca"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// challenged collects as a broker with this challenge has it collect.
type challenged struct {
	*seGuest
	challenge string
}

func (c challenged) Collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	return c.CollectFor(ctx, c.challenge, rd)
}

// decoded is what Decode returns, a field to a line.
func decoded(t *testing.T, e evidence.Evidence) string {
	t.Helper()
	fields, err := Decode(e)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	names := map[string]bool{}
	for _, f := range fields {
		if text.WriteString("\n" + f.Name + " " + f.Value); names[f.Name] || f.Value == "" {
			t.Errorf("%s: twice, or empty", f.Name)
		}
		names[f.Name] = true
	}
	return text.String() + "\n"
}

// TestDecode shows of each platform what was launched, and never without debug,
// TCB and SMT.
func TestDecode(t *testing.T) {
	snp, tdx, az, azt := evidencetest.NewSNP(t), evidencetest.NewTDX(t), azureSNP(t), azureTDX(t)
	for _, s := range []*evidencetest.SNP{snp, az.SNP} {
		s.Measurement = [48]byte{0xab}
	}
	for _, s := range []*evidencetest.TDX{tdx, azt.TDX} {
		s.MRTD = [48]byte{0xcd}
	}
	chip := evidencetest.NewTPM(t, false)
	chip.Extend(initdataPCR, [32]byte{1})
	realm := evidencetest.NewCCA(t)
	realm.Personalization, realm.Initial = [64]byte{0xbb}, [32]byte{0xcc}
	inside, _ := inRealm(realm)
	se, uv := onUV(t)
	challenge, _ := uv.Challenge()
	pcr8 := "pcr08 " + hex.EncodeToString(chip.PCR[initdataPCR][:])
	for kind, c := range map[evidence.Kind]struct {
		guest evidence.Collector
		has   []string
	}{
		evidence.SNP:    {&snpGuest{host: host{reports: &evidencetest.TSM{Provider: "sev_guest", Sign: snp.Sign}}, turn: newTurn()}, []string{"version 3", "measurement ab00", "reported_tcb bootloader", "vmpl 0", "certificates VCEK", "debug false\n", "smt allowed"}},
		evidence.TDX:    {&tdxGuest{host: host{root: t.TempDir(), reports: &evidencetest.TSM{Provider: "tdx_guest", Sign: tdx.Sign}}, turn: newTurn()}, []string{"version 4", "measurement cd00", "tee_tcb_svn", "rtmr3", "debug false\n", "smt unknown: "}},
		evidence.AzSNP:  {onAzure(t, az), []string{"evidence_version 2", "measurement ab00", "reported_tcb bootloader", "debug false\n", "smt allowed", "certificates VCEK", "pcr08 ", "tpm_firmware 0x", "tpm_clock ", "hardware_report_data "}},
		evidence.AzTDX:  {onAzure(t, azt), []string{"evidence_version 2", "measurement cd00", "tee_tcb_svn", "rtmr3", "debug false\n", "smt unknown: ", "pcr23 ", "tpm_clock "}},
		evidence.TPM:    {chip, []string{pcr8, "initdata " + pcr8[6:], "measurement unknown: ", "debug unknown: ", "tcb unknown: ", "smt unknown: ", "tpm_firmware 0x", "tpm_clock 0 ms, resets 0", "ak "}},
		evidence.CCA:    {inside, []string{"initdata bb00", "measurement cc00", "lifecycle secured (0x3003)", "debug false\n", "tcb unknown: ", "smt unknown: "}},
		evidence.SE:     {challenged{se, challenge}, []string{"config_uid ", "debug unknown: ", "tcb unknown: ", "smt unknown: ", "initdata unknown: "}},
		evidence.Sample: {Sample(), []string{"version 1", "tcb nothing is proven", "debug nothing is proven", "smt nothing is proven"}},
	} {
		t.Run(string(kind), func(t *testing.T) {
			rd, err := evidence.NewReportData(append([]byte{0x5a, 0xa5}, make([]byte, 30)...))
			if err != nil {
				t.Fatal(err)
			}
			e, err := c.guest.Collect(t.Context(), rd)
			if err != nil {
				t.Fatal(err)
			}
			text := decoded(t, e)
			for _, want := range append(c.has, "tee "+string(kind), "report_data 5aa5", "initdata ", "measurement ", "debug ", "smt ") {
				if !strings.Contains(text, "\n"+want) {
					t.Errorf("lacks %q:%s", want, text)
				}
			}
			if !strings.Contains(text, "tcb") {
				t.Errorf("lacks a TCB:%s", text)
			}
			marked, err := e.Unbound()
			if err != nil {
				t.Fatal(err)
			}
			if text := decoded(t, marked); !strings.Contains(text, "\ninitdata_bound false: ") {
				t.Errorf("does not show that it is unbound:%s", text)
			}
			for _, n := range []int{0, 1, len(e.Data) / 2, len(e.Data) - 1} {
				if _, err := Decode(evidence.Evidence{Kind: kind, Data: e.Data[:n]}); !errdefs.IsInvalidArgument(err) {
					t.Errorf("the first %d bytes: %v", n, err)
				}
			}
		})
	}
	if _, err := Decode(evidence.Evidence{Kind: "csv", Data: []byte("{}")}); !errdefs.IsNotImplemented(err) {
		t.Errorf("an unknown platform: %v", err)
	}
}

// TestDecodeDebug launches with debug, wherever the hardware tells.
func TestDecodeDebug(t *testing.T) {
	az, azt := azureSNP(t), azureTDX(t)
	az.SNP.Debug, azt.TDX.Debug = true, true
	for _, g := range []*azureGuest{onAzure(t, az), onAzure(t, azt)} {
		e, err := g.Collect(t.Context(), evidence.ReportData{})
		if err != nil {
			t.Fatal(err)
		}
		if text := decoded(t, e); !strings.Contains(text, "\ndebug true\n") {
			t.Errorf("%s does not tell debug:%s", g.kind, text)
		}
	}
	for state, want := range map[uint16]string{
		0x1000: "unknown: ", 0x20ff: "unknown: ", 0x3003: "false", 0x4000: "false", 0x5001: "true", 0x6000: "unknown: ", 0x7000: "unknown: ", 0: "unknown: ",
	} {
		name, debug := lifecycle(cca.Description{Lifecycle: state, Stated: true})
		if !strings.HasPrefix(debug, want) || !strings.Contains(name, fmt.Sprintf("%#04x", state)) {
			t.Errorf("state %#x: %s, debug %s", state, name, debug)
		}
	}
	if name, debug := lifecycle(cca.Description{}); !strings.HasPrefix(name, "unknown: ") || !strings.HasPrefix(debug, "unknown: ") {
		t.Errorf("no lifecycle: %s, debug %s", name, debug)
	}
}

// ccaJSON is evidence with the token.
func ccaJSON(t testing.TB, token []byte) []byte {
	t.Helper()
	numbers := make([]int, len(token))
	for i, b := range token {
		numbers[i] = int(b)
	}
	data, err := json.Marshal(map[string][]int{"token": numbers})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDecodeRecorded reads what real machines and the specification's authors
// have made.
func TestDecodeRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		kind evidence.Kind
		data []byte
		has  []string
	}{
		"Azure with SNP": {evidence.AzSNP, evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v2.json"), []string{"debug false\n", "reported_tcb bootloader", "vmpl 0", "certificates VCEK"}},
		"Azure with TDX": {evidence.AzTDX, evidencetest.Fixture(t, "azure/az-tdx-vtpm/evidence-v1.json"), []string{"debug false\n", "rtmr0 ", "pcr08 "}},
		"CCA":            {evidence.CCA, ccaJSON(t, evidencetest.Fixture(t, "cca/cca-example-token.cbor")), []string{"lifecycle ", "measurement ", "tcb "}},
		"CCA, draft":     {evidence.CCA, ccaJSON(t, evidencetest.Fixture(t, "cca/cca-token-draft-ffm-00.cbor")), []string{"lifecycle ", "measurement ", "tcb "}},
	} {
		t.Run(name, func(t *testing.T) {
			text := decoded(t, evidence.Evidence{Kind: c.kind, Data: c.data})
			t.Log(text)
			for _, want := range c.has {
				if !strings.Contains(text, "\n"+want) {
					t.Errorf("lacks %q:%s", want, text)
				}
			}
		})
	}
	// The module's report and the quote over it tell the same.
	var e azureEvidence
	if err := json.Unmarshal(evidencetest.Fixture(t, "azure/az-tdx-vtpm/evidence-v1.json"), &e); err != nil {
		t.Fatal(err)
	}
	report, err := base64.URLEncoding.DecodeString(e.Report)
	quote, qerr := base64.URLEncoding.DecodeString(e.TDQuote)
	if err != nil || qerr != nil {
		t.Fatal(err, qerr)
	}
	r, body := partsOfReport(report[hclHardware:hclHardware+tdreportSize]), quote[quoteHeader:]
	for at, part := range map[int][]byte{0: r.tcb, 16: r.seam, 120: r.attributes, 128: r.xfam, 136: r.mrtd, 328: r.rtmrs} {
		if !bytes.Equal(body[at:at+len(part)], part) {
			t.Errorf("at %d the quote has %x, the report %x", at, body[at:at+len(part)], part)
		}
	}
}

// FuzzDecode reads what may have come by way of the host.
func FuzzDecode(f *testing.F) {
	f.Add("tdx", []byte(`{"quote":"AAAA"}`))
	f.Add("snp", []byte(`{"attestation_report":{"version":3},"cert_chain":null}`))
	f.Add("sample", []byte(`{"svn":"1"}`))
	f.Add("cca", []byte(`{"token":[217,1,143,160]}`))
	f.Add("se", []byte(`{"user_data":"AAAA","cuid":"AA=="}`))
	f.Add("az-snp-vtpm", evidencetest.Fixture(f, "azure/az-snp-vtpm/evidence-v2.json"))
	f.Add("az-tdx-vtpm", evidencetest.Fixture(f, "azure/az-tdx-vtpm/evidence-v1.json"))
	f.Add("cca", ccaJSON(f, evidencetest.Fixture(f, "cca/cca-token-draft-ffm-00.cbor")))
	e, err := evidencetest.NewTPM(f, false).Collect(f.Context(), evidence.ReportData{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("tpm", []byte(e.Data))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		fields, err := Decode(evidence.Evidence{Kind: evidence.Kind(kind), Data: json.RawMessage(data)})
		if err != nil {
			return
		}
		text := ""
		for _, f := range fields {
			text += f.Name + "\n"
		}
		for _, never := range []string{"debug\n", "smt\n", "tcb", "report_data\n"} {
			if !strings.Contains(text, never) {
				t.Errorf("%s is missing of %q", never, text)
			}
		}
	})
}
