package tee

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

// What the paravisor of an Azure confidential VM keeps in its vTPM (openvmm,
// vm/devices/tpm/tpm_protocol/src/lib.rs).
const (
	azureReport = 0x01400001 // NV index: the HCL report, which reading renews
	azureInput  = 0x01400002 // NV index: what the next report is to carry
	azureKey    = 0x81000003 // attestation key
)

// The paravisor makes a report when the index is read, but not twice within two
// seconds; then the one before is read again. It does not say which one it is,
// nor that making one failed.
const (
	azurePoll = 250 * time.Millisecond
	azureWait = 10 * time.Second
)

// azSNP and azTDX are confidential VMs of Azure: the paravisor has the hardware
// to itself, and gives the guest a vTPM whose key the hardware vouches for.
func (h host) azSNP() Driver { return h.azure(evidence.AzSNP, hclSNP) }
func (h host) azTDX() Driver { return h.azure(evidence.AzTDX, hclTDX) }

func (h host) azure(kind evidence.Kind, report uint32) Driver {
	return Driver{
		Kind:    kind,
		Signs:   fmt.Sprintf("HCL report of type %d at NV index %#x of a TPM", report, azureReport),
		Present: func() bool { return h.findHCL(report) != "" },
		Open: func() (evidence.Collector, error) {
			vtpm := &tpmGuest{host: h, path: h.findHCL(report), turn: newTurn()}
			return &azureGuest{tpmGuest: vtpm, kind: kind, report: report, imds: newIMDS(imdsURL), wait: azureWait}, nil
		},
	}
}

// findHCL returns the TPM with a report of the type, "" without one.
func (h host) findHCL(report uint32) string {
	for _, path := range h.tpmPaths() {
		d, err := h.openTPM(filepath.Join(h.root, path))
		if err != nil {
			continue
		}
		r, err := readHCL(d)
		d.Close()
		if err == nil && r.report == report {
			return path
		}
	}
	return ""
}

// azureGuest has a TPM whose key the hardware vouches for. It collects quotes of
// that, the paravisor's report, and what the metadata service adds to it.
type azureGuest struct {
	*tpmGuest
	kind   evidence.Kind
	report uint32 // type of the hardware report
	imds   imds
	wait   time.Duration // for the paravisor

	vcek vcek // belongs to whoever has the turn
}

// Kind is evidence.AzSNP or evidence.AzTDX.
func (g *azureGuest) Kind() evidence.Kind { return g.kind }

// AnchorBinds is true: the PCRs are the paravisor's, which the hardware keeps
// from the host. A host without that hardware can pose as one, and no verifier
// will believe it.
func (g *azureGuest) AnchorBinds() bool { return true }

// azureEvidence is version 2 of what Trustee reads (deps/verifier/src/az_snp_vtpm,
// az_tdx_vtpm): the paravisor's report and the vTPM's quote carry the same data.
// Bytes are base64url with padding.
type azureEvidence struct {
	Version int        `json:"version"`
	Quote   azureQuote `json:"tpm_quote"`
	Report  string     `json:"hcl_report"`
	VCEK    string     `json:"vcek,omitempty"`     // of SNP, DER
	TDQuote string     `json:"td_quote,omitempty"` // of TDX

	// What was recorded at run time, in standard base64 as TDX has it. Trustee
	// passes over it.
	EventLog []byte `json:"cc_eventlog,omitempty"`
}

// azureQuote has hex in it.
type azureQuote struct {
	Signature string           `json:"signature"` // RSASSA with SHA-256
	Message   string           `json:"message"`   // TPMS_ATTEST
	PCRs      [tpm.PCRs]string `json:"pcrs"`
}

// Collect binds the report data as it was given, without padding, into the
// quote of the vTPM. Verifiers of SNP refuse evidence without a VCEK, so where
// the metadata service does not give it out there is none.
func (g *azureGuest) Collect(ctx context.Context, rd evidence.ReportData) (e evidence.Evidence, err error) {
	if g.log == nil {
		e, err = g.collect(ctx, rd, nil)
	} else {
		err = g.log.View(func(recorded []byte) (err error) {
			e, err = g.collect(ctx, rd, recorded)
			return err
		})
	}
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect %s evidence: %w", g.kind, err)
	}
	return e, nil
}

func (g *azureGuest) collect(ctx context.Context, rd evidence.ReportData, recorded []byte) (evidence.Evidence, error) {
	data, err := useTPM(ctx, g.tpmGuest, func(d *tpm.Device) ([]byte, error) {
		report, err := g.renewed(ctx, d, rd.Padded())
		if err != nil {
			return nil, err
		}
		q, err := d.Quote(azureKey, rd.Bytes())
		if err != nil {
			return nil, evidence.DriverIoctl.Wrap(err)
		}
		if !report.key.Equal(q.Key) {
			return nil, evidence.DriverReply.Wrap(fmt.Errorf("the vTPM signs with another key than the HCL report names: %w", errdefs.ErrDataLoss))
		}
		e := azureEvidence{Version: 2, Quote: hexQuote(q), Report: base64.URLEncoding.EncodeToString(report.raw), EventLog: recorded}
		if err := g.endorse(ctx, report.hclReport, &e); err != nil {
			return nil, err
		}
		return json.Marshal(e)
	})
	return evidence.Evidence{Kind: g.kind, Data: data}, err
}

func hexQuote(q tpm.Quote) azureQuote {
	h := azureQuote{Signature: hex.EncodeToString(q.Signature), Message: hex.EncodeToString(q.Message)}
	for i, v := range q.PCRs {
		h.PCRs[i] = hex.EncodeToString(v[:])
	}
	return h
}

// renewed leaves the data for the paravisor and returns a report that carries
// them.
func (g *azureGuest) renewed(ctx context.Context, d *tpm.Device, data [evidence.ReportDataSize]byte) (hclStatement, error) {
	if err := d.WriteNV(azureInput, data[:]); err != nil {
		return hclStatement{}, evidence.DriverIoctl.Wrap(fmt.Errorf("leave report data for the paravisor: %w", err))
	}
	for late := time.Now().Add(g.wait); ; {
		r, err := readHCL(d)
		if err != nil {
			return hclStatement{}, err
		}
		if r.report != g.report {
			return hclStatement{}, hclFault("has become one of type %d", r.report)
		}
		st, err := r.statement()
		if err != nil {
			return hclStatement{}, err
		}
		if bytes.Equal(st.userData, data[:]) {
			return st, r.bound()
		}
		if time.Now().After(late) {
			return hclStatement{}, evidence.DriverTimeout.Wrap(fmt.Errorf("the paravisor has not taken up the report data for %s: %w", g.wait, errdefs.ErrUnavailable))
		}
		if err := sleep(ctx, min(azurePoll, g.wait)); err != nil {
			return hclStatement{}, err
		}
	}
}

func readHCL(d *tpm.Device) (hclReport, error) {
	raw, err := d.ReadNV(azureReport)
	if err != nil {
		return hclReport{}, evidence.DriverIoctl.Wrap(fmt.Errorf("read the HCL report: %w", err))
	}
	return parseHCL(raw)
}

// endorse adds what makes the hardware's report verifiable.
func (g *azureGuest) endorse(ctx context.Context, r hclReport, e *azureEvidence) error {
	if r.report == hclTDX {
		if kind := r.hardware()[0]; kind != teeTypeTDX {
			return hclFault("has a TDREPORT of TEE type %#x", kind)
		}
		quote, err := g.imds.quote(ctx, r.hardware())
		if err != nil {
			return evidence.EndorsementQuoting.Wrap(err)
		}
		e.TDQuote = base64.URLEncoding.EncodeToString(quote)
		return checkQuote(quote, r.reportData())
	}
	report := snpReport(r.hardware())
	if _, err := report.fields(r.reportData()); err != nil {
		return err
	}
	der, err := g.vcek.of(ctx, report, g.imds)
	e.VCEK = base64.URLEncoding.EncodeToString(der)
	return evidence.EndorsementCertificates.Wrap(err)
}
