package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"

	"github.com/coffer-cc/coffer/evidence"
)

// azEvidence is the evidence of a vTPM below Azure's paravisor in any version.
type azEvidence struct {
	kind      evidence.Kind
	version   int
	tpm       tpmQuote
	signature []byte
	hcl       []byte
	vcek      []byte // of SNP, in DER
	quote     []byte // of TDX
}

// azureEvidence judges: the vTPM's key signed the registers, the paravisor's
// report names that key, and the processor's report vouches for it.
func azureEvidence(kind evidence.Kind, data json.RawMessage, o Options) (*Statement, error) {
	e, err := readAzure(kind, data)
	if err != nil {
		return nil, err
	}
	h, regs, err := e.parts()
	if err != nil {
		return nil, err
	}
	if err := e.tpm.rsaSigned(h.ak, e.signature); err != nil {
		return nil, err
	}
	var st *Statement
	if kind == evidence.AzSNP {
		st, err = sentReport(h.hardware, Certs{VEK: e.vcek}, o)
	} else {
		st, err = Quote(e.quote, o)
	}
	if err != nil {
		return nil, err
	}
	if err := h.vouched(st.ReportData); err != nil {
		return nil, err
	}
	e.fill(st, h, regs)
	return st, nil
}

// describeAzure reads without judging.
func describeAzure(kind evidence.Kind, data json.RawMessage) (*Statement, error) {
	e, err := readAzure(kind, data)
	if err != nil {
		return nil, err
	}
	h, regs, err := e.parts()
	if err != nil {
		return nil, err
	}
	st := describeReport(h.hardware)
	if kind == evidence.AzTDX {
		if st, err = describeQuote(e.quote); err != nil {
			return nil, err
		}
	}
	e.fill(st, h, regs)
	return st, nil
}

// parts reads the paravisor's report and the registers, and checks what no
// signature is needed for. Since version 2 the paravisor's report has the nonce
// as well, so that both are of the same moment.
func (e *azEvidence) parts() (*hclReport, *registers, error) {
	h, err := readHCL(e.hcl)
	if err != nil {
		return nil, nil, err
	}
	if want := map[evidence.Kind]uint32{evidence.AzSNP: hclSNP, evidence.AzTDX: hclTDX}[e.kind]; h.kind != want {
		return nil, nil, forged("hcl_report is of type %d, which is another platform", h.kind)
	}
	regs, err := e.tpm.read()
	if err != nil {
		return nil, nil, err
	}
	if e.version >= 2 && !bytes.HasPrefix(h.userData, regs.nonce) {
		return nil, nil, forged("user-data of hcl_report is not the nonce of the TPM quote")
	}
	return h, regs, nil
}

// fill adds the vTPM to what the processor says. The launch measurement stays
// the processor's, of the paravisor; what the guest booted is in the PCRs.
func (e *azEvidence) fill(st *Statement, h *hclReport, regs *registers) {
	st.TEE = e.kind
	st.Format = fmt.Sprintf("evidence version %d, %s", e.version, st.Format)
	regs.fill(st)
	st.Facts = append(st.Facts, h.facts()...)
}

// readAzure takes evidence of the versions that Trustee reads. The first one
// has no number, and other names.
func readAzure(kind evidence.Kind, data json.RawMessage) (*azEvidence, error) {
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, malformed("%s evidence", kind)
	}
	e := &azEvidence{kind: kind}
	var err error
	switch {
	case head.Version == nil:
		err = e.readNumbers(data)
	case *head.Version == 1, *head.Version == 2:
		e.version = *head.Version
		err = e.readTexts(data)
	default:
		return nil, unknown("%s evidence of version %d", kind, *head.Version)
	}
	if err != nil {
		return nil, malformed("%s evidence", kind)
	}
	return e, nil
}

// readTexts reads version 1 and 2, which differ in what the report contains.
func (e *azEvidence) readTexts(data json.RawMessage) error {
	var w struct {
		TPM struct {
			Signature hexed   `json:"signature"`
			Message   hexed   `json:"message"`
			PCRs      []hexed `json:"pcrs"`
		} `json:"tpm_quote"`
		HCL   urlText `json:"hcl_report"`
		VCEK  urlText `json:"vcek"`
		Quote urlText `json:"td_quote"`
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	e.tpm, e.signature = tpmQuote{w.TPM.Message, plain(w.TPM.PCRs)}, w.TPM.Signature
	e.hcl, e.vcek, e.quote = w.HCL, w.VCEK, w.Quote
	return nil
}

// readNumbers reads the form before version 1: lists of numbers, and a VCEK in
// PEM.
func (e *azEvidence) readNumbers(data json.RawMessage) error {
	type quote struct {
		Signature numbers   `json:"signature"`
		Message   numbers   `json:"message"`
		PCRs      []numbers `json:"pcrs"`
	}
	var w struct {
		Quote   quote   `json:"quote"` // of SNP
		Report  numbers `json:"report"`
		VCEK    string  `json:"vcek"`
		TPM     quote   `json:"tpm_quote"` // of TDX
		HCL     numbers `json:"hcl_report"`
		TDQuote numbers `json:"td_quote"`
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	q := w.TPM
	if e.hcl, e.quote = w.HCL, w.TDQuote; e.kind == evidence.AzSNP {
		q, e.hcl = w.Quote, w.Report
		if block, _ := pem.Decode([]byte(w.VCEK)); block != nil {
			e.vcek = block.Bytes
		}
	}
	e.tpm, e.signature = tpmQuote{q.Message, plain(q.PCRs)}, q.Signature
	return nil
}

// urlText is bytes that JSON holds in base64 for URLs, padded.
type urlText []byte

// UnmarshalJSON reads a text.
func (u *urlText) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	b, err := base64.URLEncoding.DecodeString(text)
	*u = b
	return err
}

// numbers is bytes that JSON holds as a list of numbers.
type numbers []byte

// UnmarshalJSON reads a list.
func (n *numbers) UnmarshalJSON(data []byte) error {
	var list []uint16
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	b := make([]byte, len(list))
	if !putBytes(b, list) {
		return malformed("not bytes")
	}
	*n = b
	return nil
}
