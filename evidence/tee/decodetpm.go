package tee

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

func decodeTPM(data []byte) ([]Field, error) {
	var e struct {
		Quote    tpmQuote `json:"tpm_quote"`
		Public   []byte   `json:"ak_public"`
		EventLog []byte   `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.TPM, notJSON)
	}
	quoted, err := decodeQuote(evidence.TPM, e.Quote.Message, e.Quote.PCRs)
	if err != nil {
		return nil, err
	}
	const silent = "a TPM does not tell"
	key := sha256.Sum256(e.Public)
	fields := []Field{
		{"tee", string(evidence.TPM)},
		{"measurement", unknown("what booted is in the PCRs")},
		{"debug", unknown(silent)},
		{"tcb", unknown(silent)},
		{"smt", unknown(silent)},
		{"ak", hex.EncodeToString(key[:])},
	}
	return append(append(fields, quoted...), Field{"event_log", fmt.Sprintf("%d bytes", len(e.EventLog))}), nil
}

// decodeQuote has the registers that are said beside the message, which holds
// only a digest of them.
func decodeQuote(kind evidence.Kind, message []byte, pcrs []string) ([]Field, error) {
	q, err := tpm.ReadQuote(message)
	if err != nil {
		return nil, undecodable(kind, "tpm_quote holds no quote")
	}
	if len(pcrs) != tpm.PCRs || slices.ContainsFunc(pcrs, func(v string) bool {
		b, err := hex.DecodeString(v)
		return err != nil || len(b) != sha256.Size
	}) {
		return nil, undecodable(kind, fmt.Sprintf("tpm_quote has not %d PCRs of SHA-256", tpm.PCRs))
	}
	nonce := "none"
	if len(q.Nonce) > 0 {
		nonce = hex.EncodeToString(q.Nonce)
	}
	fields := []Field{
		{"report_data", nonce},
		{"initdata", pcrs[initdataPCR]},
		{"tpm_firmware", fmt.Sprintf("%#x", q.Firmware)},
		{"tpm_clock", fmt.Sprintf("%d ms, resets %d, restarts %d, safe %t", q.Clock, q.Resets, q.Restarts, q.Safe)},
		{"pcr_digest", hex.EncodeToString(q.PCRDigest)},
	}
	for i, v := range pcrs {
		fields = append(fields, Field{fmt.Sprintf("pcr%02d", i), v})
	}
	return fields, nil
}

func decodeAzSNP(data []byte) ([]Field, error) {
	e, r, fields, err := decodeAzure(evidence.AzSNP, hclSNP, data)
	if err != nil {
		return nil, err
	}
	report, err := snpReport(r.hardware()).fields(r.reportData())
	if err != nil {
		return nil, fmt.Errorf("%s evidence: %w", evidence.AzSNP, err)
	}
	certs := NoCertificates
	if e.VCEK != "" {
		certs = "VCEK"
	}
	return append(append(fields, report.said()...), Field{FieldCertificates, certs}), nil
}

func decodeAzTDX(data []byte) ([]Field, error) {
	_, r, fields, err := decodeAzure(evidence.AzTDX, hclTDX, data)
	if err != nil {
		return nil, err
	}
	return append(fields, partsOfReport(r.hardware()).said()...), nil
}

// decodeAzure reads what both have in common: measurement, debug and the like
// stand in the hardware's report, and are the paravisor's.
func decodeAzure(kind evidence.Kind, report uint32, data []byte) (e azureEvidence, r hclReport, fields []Field, err error) {
	if err := json.Unmarshal(data, &e); err != nil {
		return e, r, nil, undecodable(kind, notJSON)
	}
	message, err := hex.DecodeString(e.Quote.Message)
	if err != nil {
		return e, r, nil, undecodable(kind, "tpm_quote is not hexadecimal")
	}
	quoted, err := decodeQuote(kind, message, e.Quote.PCRs[:])
	if err != nil {
		return e, r, nil, err
	}
	raw, err := base64.URLEncoding.DecodeString(e.Report)
	if err != nil {
		return e, r, nil, undecodable(kind, "hcl_report is not base64")
	}
	if r, err = parseHCL(raw); err != nil {
		return e, r, nil, fmt.Errorf("%s evidence: %w", kind, err)
	}
	if r.report != report {
		return e, r, nil, undecodable(kind, fmt.Sprintf("hcl_report is of type %d", r.report))
	}
	hardware := r.reportData()
	fields = append([]Field{{"tee", string(kind)}, {"evidence_version", strconv.Itoa(e.Version)}}, quoted...)
	return e, r, append(fields, Field{"hardware_report_data", hex.EncodeToString(hardware[:])}), nil
}
