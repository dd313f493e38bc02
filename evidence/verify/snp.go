package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"

	"github.com/coffer-cc/coffer/evidence"
)

// Sizes and offsets of a report (SEV Secure Nested Paging Firmware ABI,
// ATTESTATION_REPORT).
const (
	reportSize      = 1184
	reportSignature = 0x2a0
	turinFamily     = 0x1a
)

// Certs are the certificates that come with a report, in DER. Empty ones are
// absent; a report without a signing certificate cannot be judged offline.
type Certs struct {
	VEK []byte // VCEK or VLEK
}

// snpEvidence reads Trustee's form.
func snpEvidence(data json.RawMessage, o Options) (*Statement, error) {
	raw, certs, err := Decompose(data)
	if err != nil {
		return nil, err
	}
	return sentReport(raw, certs, o)
}

// sentReport judges a report that came to a broker, and refuses what Trustee
// refuses then: reports before version 3, and a VMPL other than 0.
func sentReport(raw []byte, certs Certs, o Options) (*Statement, error) {
	if v := binary.LittleEndian.Uint32(raw); v < 3 {
		return nil, unknown("report version %d is too old", v)
	}
	if v := binary.LittleEndian.Uint32(raw[0x30:]); v != 0 {
		return nil, forged("report is for VMPL %d and not 0", v)
	}
	return Report(raw, certs, o)
}

// Report judges a raw report of version 2 to 5 with the certificate of the key
// that signed it.
func Report(raw []byte, certs Certs, o Options) (*Statement, error) {
	if len(raw) < reportSize {
		return nil, malformed("report of %d bytes", len(raw))
	}
	r := report(raw[:reportSize])
	if v := r.u32(0); v < 2 || v > 5 {
		return nil, unknown("report version %d", v)
	}
	if len(certs.VEK) == 0 {
		return nil, fmt.Errorf("report: no VCEK or VLEK certificate came with it, and none is fetched: %w", errNoVEK)
	}
	vek, err := x509.ParseCertificate(certs.VEK)
	if err != nil {
		return nil, malformed("report: endorsement certificate")
	}
	if err := r.signed(vek); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	chain, err := o.chainOf(vek, r)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if err := r.vouched(vek, chain); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if err := libraryReport(r, vek, chain, o); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	st := r.statement(chain.Product, chain.Kind)
	if o.Collateral == nil {
		return st, nil
	}
	checked, err := o.Collateral.unrevoked([]*x509.Certificate{vek, chain.Between, chain.Root}, o.now(), false)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if checked > 0 {
		st.set("revocation", fmt.Sprintf("checked for %d of 2 certificates", checked))
	}
	return st, nil
}

type report []byte

func (r report) u32(at int) uint32 { return binary.LittleEndian.Uint32(r[at:]) }

// product is the line that the report itself names, "" before version 3.
func (r report) product() string {
	switch family, model := r[0x188], r[0x189]; {
	case r.u32(0) < 3:
		return ""
	case family == 0x19 && model < 0x10:
		return "Milan"
	case family == 0x19 && (model < 0x20 || model >= 0xa0 && model < 0xb0):
		return "Genoa"
	case family == turinFamily && model <= 0x11:
		return "Turin"
	default:
		return fmt.Sprintf("processor of family %#x, model %#x", family, model)
	}
}

// signed checks the signature by the key of the certificate, whoever that is.
func (r report) signed(vek *x509.Certificate) error {
	key, ok := vek.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != curve384 {
		return malformed("endorsement certificate has no key on P-384")
	}
	if alg := r.u32(0x34); alg != 1 {
		return unknown("signature algorithm %d", alg)
	}
	sum := sha512.Sum384(r[:reportSignature])
	if !ecdsa.Verify(key, sum[:], littleEndian(r[reportSignature:reportSignature+72]), littleEndian(r[reportSignature+72:reportSignature+144])) {
		return forged("signature does not match")
	}
	return nil
}

// vouched checks that the certificate is for this chip, this firmware and the
// kind of key that the report names.
func (r report) vouched(vek *x509.Certificate, chain SNPChain) error {
	signer := r.u32(0x48) >> 2 & 7
	if vlek := chain.Kind == "VLEK"; signer != 0 && signer != 1 || vlek != (signer == 1) {
		return forged("report names another kind of key than the %s that signed it", chain.Kind)
	}
	ext, err := readVEK(vek)
	if err != nil {
		return err
	}
	if want := tcbOf(r[0x180:0x188], chain.Product); ext.tcb != want {
		return forged("endorsement certificate is for other firmware than the report (%v, %v)", ext.tcb, want)
	}
	if chip := r[0x1a0:0x1e0]; chain.Kind == "VCEK" && len(bytes.Trim(chip, "\x00")) > 0 && !bytes.HasPrefix(chip, ext.chip) {
		return forged("endorsement certificate is for another chip")
	}
	return nil
}

func littleEndian(b []byte) *big.Int {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// Bits of the guest's policy and of the platform's info.
const (
	policySMT      = 1 << 16
	policyMigrate  = 1 << 18
	policyDebug    = 1 << 19
	platformSMT    = 1 << 0
	platformTSME   = 1 << 1
	keyInfoMasked  = 1 << 1
	policyABIMajor = 8
)

func (r report) statement(product, kind string) *Statement {
	policy, platform := binary.LittleEndian.Uint64(r[8:]), binary.LittleEndian.Uint64(r[0x40:])
	return &Statement{
		TEE: evidence.SNP, ReportData: [64]byte(r[0x50:]), Measurement: [48]byte(r[0x90:]),
		InitData: bytes.Clone(r[0xc0:0xe0]), Debug: policy&policyDebug != 0,
		Format: fmt.Sprintf("report version %d, %s", r.u32(0), product),
		Facts: []Fact{
			{"debug", fmt.Sprint(policy&policyDebug != 0)},
			{"vmpl", fmt.Sprint(r.u32(0x30))},
			{"signed_by", kind},
			{"policy_abi", fmt.Sprintf("%d.%d", policy>>policyABIMajor&0xff, policy&0xff)},
			{"smt", fmt.Sprintf("allowed %t, enabled %t", policy&policySMT != 0, platform&platformSMT != 0)},
			{"migration_agent", fmt.Sprint(policy&policyMigrate != 0)},
			{"tsme", fmt.Sprint(platform&platformTSME != 0)},
			{"reported_tcb", tcbOf(r[0x180:0x188], product).String()},
			{"tcb_status", "not checked: compare reported_tcb with what you demand"},
			{"revocation", "not checked: needs AMD's CRL"},
			{"chip_id", hex.EncodeToString(r[0x1a0:0x1e0])},
			{"chip_id_masked", fmt.Sprint(r.u32(0x48)&keyInfoMasked != 0)},
		},
	}
}

// Decompose turns Trustee's form of SNP evidence into the raw report and the
// certificate that came with it, without judging either.
func Decompose(data json.RawMessage) ([]byte, Certs, error) {
	var e struct {
		Report json.RawMessage `json:"attestation_report"`
		Chain  []struct {
			Type json.RawMessage `json:"cert_type"` // a text, or an object for other kinds
			Data []uint16        `json:"data"`
		} `json:"cert_chain"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, Certs{}, malformed("snp evidence")
	}
	raw, err := rebuildReport(e.Report)
	if err != nil {
		return nil, Certs{}, fmt.Errorf("snp evidence: %w", err)
	}
	for _, c := range e.Chain {
		if kind := string(c.Type); kind != `"VCEK"` && kind != `"VLEK"` {
			continue
		}
		vek := make([]byte, len(c.Data))
		if !putBytes(vek, c.Data) {
			return nil, Certs{}, malformed("cert_chain")
		}
		return raw, Certs{VEK: vek}, nil // the first one signs
	}
	return raw, Certs{}, nil
}
