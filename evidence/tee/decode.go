package tee

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/cca"
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
// always among the fields. Evidence of a platform that is not taken apart here
// has a field that says so.
func Decode(e evidence.Evidence) ([]Field, error) {
	switch e.Kind {
	case evidence.SNP:
		return decodeSNP(e.Data)
	case evidence.TDX:
		return decodeTDX(e.Data)
	case evidence.Sample:
		return decodeSample(e.Data)
	case evidence.CCA:
		return decodeCCA(e.Data)
	}
	unread := "not taken apart here: agent-ctl evidence decode"
	if e.Kind == evidence.SE {
		unread = "not told: the verifier knows what it asked for"
	}
	return []Field{{"tee", string(e.Kind)}, {"debug", unread}, {"tcb", unread}, {"smt", unread}}, nil
}

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
		return nil, fmt.Errorf("snp evidence: %w", errdefs.ErrInvalidArgument)
	}
	r := e.Report
	certs := NoCertificates
	if len(e.Chain) > 0 {
		var names []string
		for _, c := range e.Chain {
			names = append(names, c.Type)
		}
		certs = strings.Join(names, " ")
	}
	return []Field{
		{"tee", string(evidence.SNP)},
		{"version", strconv.FormatUint(uint64(r.Version), 10)},
		{"report_data", hex.EncodeToString(r.ReportData[:])},
		{"measurement", hex.EncodeToString(r.Measurement[:])},
		{"initdata", hex.EncodeToString(r.HostData[:])},
		{"debug", strconv.FormatBool(r.Policy&policyDebug != 0)},
		{"smt", fmt.Sprintf("allowed %t, enabled %t", r.Policy&policySMT != 0, r.PlatInfo&platformSMT != 0)},
		{"migration_agent", strconv.FormatBool(r.Policy&policyMigrate != 0)},
		{"vmpl", strconv.FormatUint(uint64(r.VMPL), 10)},
		{"reported_tcb", r.ReportedTCB.text()},
		{"committed_tcb", r.CommittedTCB.text()},
		{"launch_tcb", r.LaunchTCB.text()},
		{"processor", fmt.Sprintf("family %#x, model %#x, stepping %d", r.Family, r.Model, r.Stepping)},
		{"chip_id", hex.EncodeToString(r.ChipID[:])},
		{FieldCertificates, certs},
	}, nil
}

func (t snpTCB) text() string {
	text := fmt.Sprintf("bootloader %d, tee %d, snp %d, microcode %d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
	if t.FMC != nil {
		text = fmt.Sprintf("fmc %d, ", *t.FMC) + text
	}
	return text
}

func decodeTDX(data []byte) ([]Field, error) {
	var e struct {
		EventLog []byte `json:"cc_eventlog"`
		Quote    []byte `json:"quote"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("tdx evidence: %w", errdefs.ErrInvalidArgument)
	}
	if len(e.Quote) < quoteHeader+quoteBodyHead+quoteBody {
		return nil, fmt.Errorf("tdx evidence: quote of %d bytes is too short: %w", len(e.Quote), errdefs.ErrInvalidArgument)
	}
	version, body := binary.LittleEndian.Uint16(e.Quote), e.Quote[quoteHeader:]
	if version == 5 {
		body = body[quoteBodyHead:]
	}
	part := func(at, size int) string { return hex.EncodeToString(body[at : at+size]) }
	fields := []Field{
		{"tee", string(evidence.TDX)},
		{"version", strconv.Itoa(int(version))},
		{"report_data", part(bodyReportData, 64)},
		{"measurement", part(136, 48)},
		{"initdata", part(184, 48)},
		{"debug", strconv.FormatBool(body[120]&1 != 0)},
		{"smt", "not in a quote"},
		{"tee_tcb_svn", part(0, 16)},
		{"mr_seam", part(16, 48)},
		{"td_attributes", part(120, 8)},
		{"xfam", part(128, 8)},
	}
	for i := range 4 {
		fields = append(fields, Field{fmt.Sprintf("rtmr%d", i), part(328+48*i, 48)})
	}
	return append(fields, Field{"event_log", fmt.Sprintf("%d bytes", len(e.EventLog))}), nil
}

// decodeCCA shows the part of the realm that this guest itself reads.
func decodeCCA(data []byte) ([]Field, error) {
	var e struct {
		Token []uint16 `json:"token"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("cca evidence: %w", errdefs.ErrInvalidArgument)
	}
	token := make([]byte, len(e.Token))
	for i, n := range e.Token {
		if token[i] = byte(n); n > 0xff {
			return nil, fmt.Errorf("cca evidence: token: %w", errdefs.ErrInvalidArgument)
		}
	}
	realm, err := cca.Parse(token)
	if err != nil {
		return nil, fmt.Errorf("cca evidence: %w", err)
	}
	const unread = "not read here: the verifier tells"
	return []Field{
		{"tee", string(evidence.CCA)},
		{"report_data", hex.EncodeToString(realm.Challenge[:])},
		{"measurement", unread},
		{"initdata", hex.EncodeToString(realm.Personalization[:])},
		{"debug", unread}, {"smt", unread}, {"tcb", unread},
	}, nil
}

func decodeSample(data []byte) ([]Field, error) {
	var e struct {
		SVN        string `json:"svn"`
		ReportData []byte `json:"report_data"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("sample evidence: %w", errdefs.ErrInvalidArgument)
	}
	const none = "nothing is proven"
	return []Field{
		{"tee", string(evidence.Sample)}, {"version", e.SVN}, {"report_data", hex.EncodeToString(e.ReportData)},
		{"measurement", none}, {"initdata", none}, {"debug", none}, {"smt", none}, {"tcb", none},
	}, nil
}
