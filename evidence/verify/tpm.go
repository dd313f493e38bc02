package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/coffer-cc/coffer/evidence"
)

// PCRs is the number of registers of a TPM, all of which a quote has to cover.
const PCRs = 24

// tpmQuote is what a TPM says of its registers, before it is judged.
type tpmQuote struct {
	message []byte // TPMS_ATTEST
	pcrs    [][]byte
}

// registers is what a quote says after it was judged.
type registers struct {
	nonce []byte // extraData
	pcrs  [PCRs][32]byte
}

// read checks that the message is a quote made by a TPM (Trusted Platform
// Module Library, part 2, TPMS_ATTEST) over exactly these registers. A
// selection of some registers would let the others say anything. Who signed
// the message is a matter of its own.
func (q tpmQuote) read() (*registers, error) {
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.message)
	if err != nil || !bytes.Equal(tpm2.Marshal(attest), q.message) {
		return nil, malformed("TPM quote")
	}
	if attest.Magic != tpm2.TPMGeneratedValue || attest.Type != tpm2.TPMSTAttestQuote {
		return nil, forged("TPM signed something that is no quote")
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return nil, malformed("TPM quote")
	}
	all := info.PCRSelect.PCRSelections
	if len(all) != 1 || all[0].Hash != tpm2.TPMAlgSHA256 || !bytes.Equal(all[0].PCRSelect, []byte{0xff, 0xff, 0xff}) {
		return nil, unknown("TPM quote of other registers than PCR 0 to %d of SHA-256", PCRs-1)
	}
	r := &registers{nonce: attest.ExtraData.Buffer}
	if len(q.pcrs) != PCRs {
		return nil, malformed("%d PCRs", len(q.pcrs))
	}
	sum := sha256.New()
	for i, pcr := range q.pcrs {
		if copy(r.pcrs[i][:], pcr) != len(pcr) || len(pcr) != len(r.pcrs[i]) {
			return nil, malformed("PCR %d of %d bytes", i, len(pcr))
		}
		sum.Write(pcr)
	}
	if !bytes.Equal(sum.Sum(nil), info.PCRDigest.Buffer) {
		return nil, forged("PCRs are not those of the TPM quote")
	}
	return r, nil
}

// rsaSigned checks RSASSA with SHA-256, the scheme of Azure's key.
func (q tpmQuote) rsaSigned(key *rsa.PublicKey, sig []byte) error {
	if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
		return unknown("attestation key of %d bits", bits)
	}
	sum := sha256.Sum256(q.message)
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) != nil {
		return forged("TPM quote is not signed by the attestation key")
	}
	return nil
}

// signed checks a TPMT_SIGNATURE, which names its scheme.
func (q tpmQuote) signed(key crypto.PublicKey, signature []byte) error {
	s, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return malformed("signature of the TPM quote")
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		sig, err := s.Signature.RSASSA()
		if err != nil || s.SigAlg != tpm2.TPMAlgRSASSA || sig.Hash != tpm2.TPMAlgSHA256 {
			return unknown("signature of the TPM quote by algorithm %#x", uint16(s.SigAlg))
		}
		return q.rsaSigned(key, sig.Sig.Buffer)
	case *ecdsa.PublicKey:
		sig, err := s.Signature.ECDSA()
		if err != nil || s.SigAlg != tpm2.TPMAlgECDSA || sig.Hash != tpm2.TPMAlgSHA256 {
			return unknown("signature of the TPM quote by algorithm %#x", uint16(s.SigAlg))
		}
		sum := sha256.Sum256(q.message)
		number := new(big.Int).SetBytes
		if !ecdsa.Verify(key, sum[:], number(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)) {
			return forged("TPM quote is not signed by the attestation key")
		}
		return nil
	}
	return unknown("attestation key of type %T", key)
}

// tpmWire is the evidence of a plain TPM as Trustee reads it.
type tpmWire struct {
	Quote struct {
		Signature []byte  `json:"signature"`
		Message   []byte  `json:"message"`
		PCRs      []hexed `json:"pcrs"`
	} `json:"tpm_quote"`
	Key []byte `json:"ak_public"`
}

// tpmEvidence judges a TPM that is no part of a confidential platform. Nothing
// vouches for its key, which comes with the evidence.
func tpmEvidence(data json.RawMessage) (*Statement, error) {
	st, e, err := describeTPM(data)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(e.Key)
	if err != nil {
		return nil, malformed("ak_public")
	}
	q := tpmQuote{message: e.Quote.Message}
	if err := q.signed(key, e.Quote.Signature); err != nil {
		return nil, err
	}
	return st, nil
}

func describeTPM(data json.RawMessage) (*Statement, *tpmWire, error) {
	e := new(tpmWire)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, nil, malformed("tpm evidence")
	}
	regs, err := tpmQuote{e.Quote.Message, plain(e.Quote.PCRs)}.read()
	if err != nil {
		return nil, nil, err
	}
	st := &Statement{TEE: evidence.TPM, Format: "TPM quote", HostControlled: true, AK: sha256.Sum256(e.Key)}
	regs.fill(st)
	st.Facts = []Fact{
		{"debug", "unknown: a TPM does not tell"},
		{"tcb_status", "unknown: a TPM does not tell"},
		{"smt", "unknown: a TPM does not tell"},
		{"ak", hex.EncodeToString(st.AK[:])},
		{"ak_public", base64.StdEncoding.EncodeToString(e.Key)},
		{"host_controlled", "true: who owns the TPM owns the key, and nothing vouches for it"},
	}
	return st, e, nil
}

// fill puts the registers into a statement; PCR 8 is the one of the initdata.
func (r *registers) fill(st *Statement) {
	st.PCR, st.nonce = r.pcrs[:], r.nonce
	st.ReportData = [64]byte{}
	copy(st.ReportData[:], r.nonce)
	st.InitData = bytes.Clone(r.pcrs[initDataPCR][:])
}

// hexed is bytes that JSON holds as hex.
type hexed []byte

// UnmarshalJSON reads a text of hex digits.
func (h *hexed) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return fmt.Errorf("hex: %w", err)
	}
	*h = b
	return nil
}

func plain[T ~[]byte](list []T) [][]byte {
	var out [][]byte
	for _, b := range list {
		out = append(out, b)
	}
	return out
}
