package tee

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// Field is a named value of evidence, spelled as agent-ctl evidence decode
// spells it.
type Field struct{ Name, Value string }

// Of the certificates that the host keeps for the signing key.
const (
	FieldCertificates = "certificates"
	NoCertificates    = "none: the verifier has to fetch them"
)

// Decode returns what evidence says, without judging it: debug, TCB and SMT are
// always among the fields, as unknown where the format does not tell. Evidence
// that marks its initdata as unbound has a field for that at the end. A platform
// that nobody collects for wraps errdefs.ErrNotImplemented.
func Decode(e evidence.Evidence) ([]Field, error) {
	decode, known := decoders[e.Kind]
	if !known {
		return nil, fmt.Errorf("decode evidence of %q: %w", e.Kind, errdefs.ErrNotImplemented)
	}
	fields, err := decode(e.Data)
	if err != nil {
		return nil, err
	}
	if e.SaysUnbound() {
		fields = append(fields, Field{"initdata_bound", "false: the guest says that no hardware vouches for its initdata"})
	}
	return fields, nil
}

var decoders = map[evidence.Kind]func([]byte) ([]Field, error){
	evidence.SNP: decodeSNP, evidence.TDX: decodeTDX, evidence.AzSNP: decodeAzSNP, evidence.AzTDX: decodeAzTDX,
	evidence.TPM: decodeTPM, evidence.CCA: decodeCCA, evidence.SE: decodeSE, evidence.Sample: decodeSample,
}

// undecodable is evidence that does not have the form of its platform.
func undecodable(kind evidence.Kind, why string) error {
	return fmt.Errorf("%s evidence: %s: %w", kind, why, errdefs.ErrInvalidArgument)
}

const notJSON = "not of the form that verifiers read"

// Bits of an SNP guest's policy and of the platform's info (SEV Secure Nested
// Paging Firmware ABI, GUEST_POLICY and PLATFORM_INFO).
const (
	policySMT     = 1 << 16
	policyMigrate = 1 << 18
	policyDebug   = 1 << 19
	platformSMT   = 1 << 0
)

func decodeSNP(data []byte) ([]Field, error) {
	var e struct {
		Report snpFields `json:"attestation_report"`
		Chain  []snpCert `json:"cert_chain"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.SNP, notJSON)
	}
	certs := NoCertificates
	if len(e.Chain) > 0 {
		var names []string
		for _, c := range e.Chain {
			names = append(names, c.Type)
		}
		certs = strings.Join(names, " ")
	}
	fields := []Field{
		{"tee", string(evidence.SNP)},
		{"report_data", hex.EncodeToString(e.Report.ReportData[:])},
		{"initdata", hex.EncodeToString(e.Report.HostData[:])},
	}
	return append(append(fields, e.Report.said()...), Field{FieldCertificates, certs}), nil
}

// said is what a report tells of the guest's launch and its platform.
func (r *snpFields) said() []Field {
	return []Field{
		{"version", strconv.FormatUint(uint64(r.Version), 10)},
		{"measurement", hex.EncodeToString(r.Measurement[:])},
		{"debug", strconv.FormatBool(r.Policy&policyDebug != 0)},
		{"smt", fmt.Sprintf("allowed %t, enabled %t", r.Policy&policySMT != 0, r.PlatInfo&platformSMT != 0)},
		{"migration_agent", strconv.FormatBool(r.Policy&policyMigrate != 0)},
		{"vmpl", strconv.FormatUint(uint64(r.VMPL), 10)},
		{"reported_tcb", r.ReportedTCB.text()},
		{"committed_tcb", r.CommittedTCB.text()},
		{"launch_tcb", r.LaunchTCB.text()},
		{"processor", fmt.Sprintf("family %#x, model %#x, stepping %d", r.Family, r.Model, r.Stepping)},
		{"chip_id", hex.EncodeToString(r.ChipID[:])},
	}
}

func (t snpTCB) text() string {
	text := fmt.Sprintf("bootloader %d, tee %d, snp %d, microcode %d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
	if t.FMC != nil {
		text = fmt.Sprintf("fmc %d, ", *t.FMC) + text
	}
	return text
}

// unknown is the value of what the format does not tell.
func unknown(why string) string { return "unknown: " + why }

func decodeSample(data []byte) ([]Field, error) {
	var e struct {
		SVN        string `json:"svn"`
		ReportData []byte `json:"report_data"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.Sample, notJSON)
	}
	const none = "nothing is proven"
	return []Field{
		{"tee", string(evidence.Sample)}, {"version", e.SVN}, {"report_data", hex.EncodeToString(e.ReportData)},
		{"measurement", none}, {"initdata", none}, {"debug", none}, {"smt", none}, {"tcb", none},
	}, nil
}
