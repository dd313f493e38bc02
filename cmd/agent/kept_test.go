package main

import (
	"context"
	"testing"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/evidence"
)

// foundAs is a platform that was found at boot, of which nothing shows any more.
type foundAs evidence.Kind

func (f foundAs) Kind() evidence.Kind { return evidence.Kind(f) }

func (foundAs) Collect(context.Context, evidence.ReportData) (evidence.Evidence, error) {
	return evidence.Evidence{}, context.Canceled
}

// A vTPM that fails after it was found, or lies where only the image's file says,
// leaves the guest as closed to its host as it was.
func TestConfidentialStaysSo(t *testing.T) {
	if (&process{config: config.Default()}).confidential() {
		t.Skip("this machine is itself a confidential guest")
	}
	for kind, want := range map[evidence.Kind]bool{
		evidence.TDX: true, evidence.SNP: true, evidence.CCA: true, evidence.SE: true,
		evidence.AzSNP: true, evidence.AzTDX: true, evidence.TPM: false, evidence.Sample: false, "sev": false,
	} {
		p := &process{config: config.Default(), platform: foundAs(kind)}
		p.config.Attestation.TPM.Device = "/dev/nowhere"
		if got := p.confidential(); got != want {
			t.Errorf("%s: confidential = %v", kind, got)
		}
	}
}
