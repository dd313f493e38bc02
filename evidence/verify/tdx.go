package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// tdxEvidence reads Trustee's form: a quote and perhaps an event log, which
// then has to explain the runtime registers.
func tdxEvidence(data json.RawMessage, o Options) (*Statement, error) {
	var e struct {
		EventLog []byte `json:"cc_eventlog"`
		Quote    []byte `json:"quote"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, malformed("tdx evidence")
	}
	st, err := Quote(e.Quote, o)
	if err != nil {
		return nil, err
	}
	if len(e.EventLog) == 0 {
		return st, nil
	}
	events, _, err := measure.CCEL(e.EventLog)
	if err != nil {
		return nil, err
	}
	rtmr, err := measure.Replay(events)
	if err != nil {
		return nil, err
	}
	if rtmr != st.RTMR {
		return nil, forged("event log does not replay to the runtime registers")
	}
	st.Events = len(events)
	return st, nil
}

// quote is a TDX quote taken apart (Intel TDX DCAP: Quote Generation Library,
// appendix A). Version 5 says before the body what kind of body it is.
type quote struct {
	signed   []byte // header and body
	version  uint16
	body     []byte // the parts of TDX 1.0 come first in each kind
	sig      []byte // r ‖ s
	key      []byte // attestation key, x ‖ y
	qeReport []byte
	qeSig    []byte
	qeAuth   []byte
	chain    []byte // PEM
}

const (
	quoteHeaderSize = 48
	qeReportSize    = 384
	body10, body15  = 584, 648
	teeTDX          = 0x81
	certsPEM        = 5 // PCK certificate chain
	certsQE         = 6 // report of the quoting enclave
)

// Quote judges a raw quote of version 4 or 5. Bytes after it are ignored, as
// some platforms hand out a buffer of fixed size.
func Quote(raw []byte, o Options) (*Statement, error) {
	q, err := parseQuote(raw)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	pck, err := pckCertificate(q.chain, o)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	if err := q.verify(pck); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	if err := libraryQuote(raw, q.version, o); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	st := q.statement(pck.fmspc)
	if o.Collateral == nil {
		return st, nil
	}
	v, err := q.tcb(pck, o)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	st.TCBStatus = v.status
	st.set("tcb_status", v.status)
	st.Facts = append(st.Facts,
		Fact{"tcb_date", v.date}, Fact{"advisories", strings.Join(v.advisories, " ")},
		Fact{"tcb_evaluation", fmt.Sprint(v.evaluation)}, Fact{"collateral_expires", v.expires.UTC().Format(time.RFC3339)})
	return st, nil
}

func parseQuote(raw []byte) (*quote, error) {
	r := cursor{rest: raw}
	h := r.take(quoteHeaderSize)
	if r.err != nil {
		return nil, r.err
	}
	q := &quote{version: binary.LittleEndian.Uint16(h)}
	if tee := binary.LittleEndian.Uint32(h[4:]); tee != teeTDX {
		return nil, unknown("TEE type %#x", tee)
	}
	if alg := binary.LittleEndian.Uint16(h[2:]); alg != 2 {
		return nil, unknown("attestation key of type %d", alg)
	}
	switch q.version {
	case 4:
		q.body = r.take(body10)
	case 5:
		kind, size := r.u16(), r.u32()
		if want := map[uint16]uint32{2: body10, 3: body15}[kind]; r.err == nil && (want == 0 || size != want) {
			return nil, unknown("body of type %d with %d bytes", kind, size)
		}
		q.body = r.take(int(size))
	default:
		return nil, unknown("version %d", q.version)
	}
	q.signed = raw[:len(raw)-len(r.rest)]
	q.signature(cursor{rest: r.take(int(r.u32())), err: r.err}, &r)
	return q, r.err
}

// signature takes the signed parts' certification apart: the quote's signature
// and key, and inside the certification the report of the quoting enclave with
// its own signature and chain.
func (q *quote) signature(s cursor, r *cursor) {
	q.sig, q.key = s.take(64), s.take(64)
	if kind := s.u16(); s.err == nil && kind != certsQE {
		s.err = unknown("certification data of type %d", kind)
	}
	in := cursor{rest: s.take(int(s.u32())), err: s.err}
	q.qeReport, q.qeSig = in.take(qeReportSize), in.take(64)
	q.qeAuth = in.take(int(in.u16()))
	if kind := in.u16(); in.err == nil && kind != certsPEM {
		in.err = unknown("certification of the quoting enclave of type %d", kind)
	}
	q.chain = in.take(int(in.u32()))
	if r.err == nil {
		r.err = in.err
	}
}

// Offsets in the report of the quoting enclave.
const (
	qeAttributes = 48
	qeSigner     = 128
	qeReportData = 320
)

// intelSigner is MRSIGNER of Intel's quoting enclaves for TDX, which stands in
// Intel's TDX QE identity. Any other enclave on a genuine platform could get
// its report certified as well, and sign whatever it likes.
var intelSigner, _ = hex.DecodeString("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")

// verify follows the signatures from the PCK certificate down to the body.
func (q *quote) verify(pck *certificate) error {
	if !signedBy(pck.key, q.qeReport, q.qeSig) {
		return forged("report of the quoting enclave is not signed by the PCK certificate")
	}
	if !bytes.Equal(q.qeReport[qeSigner:qeSigner+32], intelSigner) || q.qeReport[qeAttributes]&2 != 0 {
		return forged("quoting enclave is not Intel's")
	}
	sum := sha256.Sum256(append(bytes.Clone(q.key), q.qeAuth...))
	if !bytes.Equal(q.qeReport[qeReportData:qeReportData+64], append(sum[:], make([]byte, 32)...)) {
		return forged("attestation key is not the one of the quoting enclave")
	}
	key, err := p256(q.key)
	if err != nil {
		return err
	}
	if !signedBy(key, q.signed, q.sig) {
		return forged("signature does not match")
	}
	return nil
}

func p256(xy []byte) (*ecdsa.PublicKey, error) {
	key, err := ecdsa.ParseUncompressedPublicKey(curve256, append([]byte{4}, xy...))
	if err != nil {
		return nil, malformed("attestation key is not on its curve")
	}
	return key, nil
}

// signedBy checks r ‖ s over SHA-256.
func signedBy(key *ecdsa.PublicKey, message, sig []byte) bool {
	sum := sha256.Sum256(message)
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// statement reads the body. Bit 0 of TDATTRIBUTES is DEBUG.
func (q *quote) statement(fmspc string) *Statement {
	st := &Statement{
		TEE: evidence.TDX, ReportData: [64]byte(q.body[520:]), Measurement: [48]byte(q.body[136:]),
		InitData: bytes.Clone(q.body[184:232]), Debug: q.body[120]&1 != 0,
		Format: fmt.Sprintf("quote version %d", q.version),
	}
	for i := range st.RTMR {
		st.RTMR[i] = [48]byte(q.body[328+48*i:])
	}
	st.Facts = []Fact{
		{"debug", fmt.Sprint(st.Debug)},
		{"td_attributes", hex.EncodeToString(q.body[120:128])},
		{"xfam", hex.EncodeToString(q.body[128:136])},
		{"tee_tcb_svn", hex.EncodeToString(q.body[:16])},
		{"mr_seam", hex.EncodeToString(q.body[16:64])},
		{"fmspc", fmspc},
		{"tcb_status", "not checked: needs Intel's collateral"},
		{"smt", "not in a quote"},
	}
	return st
}
