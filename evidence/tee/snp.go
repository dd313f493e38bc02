package tee

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

// snp is AMD SEV-SNP. The kernel makes the platform device by itself, so it
// shows the platform also where no driver is bound to it.
func (h host) snp() Driver {
	return Driver{
		Kind:  evidence.SNP,
		Signs: "/dev/sev-guest, /sys/devices/platform/sev-guest, report provider sev_guest",
		Present: func() bool {
			return h.opens("dev/sev-guest") || h.exists("sys/devices/platform/sev-guest") || h.reporter("sev_guest")
		},
		Open: func() (evidence.Collector, error) { return &snpGuest{host: h, turn: newTurn()}, nil },
	}
}

// snpGuest collects reports of the security processor and the certificates
// that the host keeps for it.
type snpGuest struct {
	host host
	turn turn

	// What follows belongs to whoever has the turn.
	chain    []snpCert // of chainFor, so that the host is asked for it once
	chainFor []byte    // chip and firmware that chain vouches for
}

// Kind is evidence.SNP.
func (s *snpGuest) Kind() evidence.Kind { return evidence.SNP }

// statement is a report and the chain for it, nil where the host has none.
type statement struct {
	report snpReport
	chain  []snpCert
}

// Collect returns what Trustee reads (deps/verifier/src/snp): the fields of the
// report, and the certificates that vouch for its signing key. Without
// certificates a verifier fetches them from AMD, so their absence is no error.
func (s *snpGuest) Collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	in := rd.Padded()
	st, err := ask(ctx, s.turn, func() (statement, error) { return s.state(in) })
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect snp evidence: %w", err)
	}
	if st.chain == nil {
		slog.InfoContext(ctx, "the host has no certificates for the key that signs reports", "code", string(evidence.EndorsementCertificates))
	}
	data, err := st.encode(in)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect snp evidence: %w", err)
	}
	return evidence.Evidence{Kind: evidence.SNP, Data: data}, nil
}

// state asks for a report, and for certificates unless those at hand vouch for
// the same chip and firmware.
func (s *snpGuest) state(in [64]byte) (statement, error) {
	raw, table, err := s.report(in, s.chain == nil)
	if err != nil {
		return statement{}, err
	}
	report, err := parseReport(raw)
	if err != nil {
		return statement{}, err
	}
	if table == nil && s.chain != nil && !bytes.Equal(s.chainFor, report.signer()) {
		// The firmware was replaced under the running guest.
		if raw, table, err = s.report(in, true); err != nil {
			return statement{}, err
		}
		if report, err = parseReport(raw); err != nil {
			return statement{}, err
		}
		s.chain = nil
	}
	if s.chain == nil {
		s.chain, s.chainFor = parseCertTable(table), report.signer()
	}
	return statement{report, s.chain}, nil
}

// report returns the raw report, and with certs the raw table of certificates
// that the host keeps, which may be empty.
func (s *snpGuest) report(in [64]byte, certs bool) (raw, table []byte, err error) {
	if !s.host.reporter("sev_guest") {
		return s.host.snpReport(in, certs)
	}
	r, err := tsm.Get(s.host.reports, tsm.Request{Provider: "sev_guest", In: in, Aux: certs})
	return r.Out, r.Aux, evidence.DriverConfigfs.Wrap(err)
}

// encode checks the report and writes the two parts as JSON.
func (st statement) encode(in [64]byte) ([]byte, error) {
	fields, err := st.report.fields(in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Report *snpFields `json:"attestation_report"`
		Chain  []snpCert  `json:"cert_chain"` // null and not empty without any
	}{fields, st.chain})
}

// LaunchAnchor returns HOST_DATA. The report comes over a channel that the
// guest's kernel and the security processor encrypt, so the host cannot forge
// it, whatever its signature says.
func (s *snpGuest) LaunchAnchor(ctx context.Context) ([]byte, error) {
	raw, err := ask(ctx, s.turn, func() ([]byte, error) {
		raw, _, err := s.report([64]byte{}, false)
		return raw, err
	})
	if err != nil {
		return nil, fmt.Errorf("read HOST_DATA: %w", err)
	}
	report, err := parseReport(raw)
	if err != nil {
		return nil, fmt.Errorf("read HOST_DATA: %w", err)
	}
	return report.hostData(), nil
}
