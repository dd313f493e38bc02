package tee

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// hclReport is what the paravisor of an Azure confidential VM (OpenHCL, or the
// HCL before it) keeps in an NV index of its vTPM: a report of the hardware, and
// the claims whose SHA-256 is the report data of that report. Little endian:
//
//	   0  header           "HCLA", version, size, request type, status, 3 reserved: u32
//	  32  hardware report  1184 bytes; a TDREPORT takes the first 1024
//	1216  request data     size, version, report type, hash type, claims' size: u32
//	1236  claims           JSON, then zeros up to the size of the index
//
// (openvmm, openhcl_attestation_protocol/src/igvm_attest/get.rs)
type hclReport struct {
	raw    []byte
	report uint32 // type of the hardware report
	claims []byte
}

const (
	hclMagic    = "HCLA"
	hclHardware = 32
	hclRequest  = hclHardware + reportSize
	hclClaims   = hclRequest + 20
	maxHCL      = 16 << 10 // 2600 bytes so far

	hclSNP    = 2 // report types; others are of VMs without a TEE, and of Arm
	hclTDX    = 4
	hclSHA256 = 1 // hash type

	hclKey = "HCLAkPub" // key id of the vTPM's attestation key
)

// hclFault is a report that means nothing.
func hclFault(format string, args ...any) error {
	return evidence.DriverReply.Wrap(fmt.Errorf("HCL report "+format+": %w", append(args, errdefs.ErrInvalidArgument)...))
}

// parseHCL finds the parts of a report and looks into none.
func parseHCL(raw []byte) (hclReport, error) {
	r := hclReport{raw: raw}
	if len(raw) < hclClaims || len(raw) > maxHCL {
		return r, hclFault("of %d bytes", len(raw))
	}
	if !bytes.HasPrefix(raw, []byte(hclMagic)) {
		return r, hclFault("does not begin with %s", hclMagic)
	}
	r.report = r.u32(8)
	size := r.u32(16)
	if uint64(size) > uint64(len(raw)-hclClaims) {
		return r, hclFault("of %d bytes has claims of %d", len(raw), size)
	}
	r.claims = raw[hclClaims : hclClaims+int(size)]
	return r, nil
}

// u32 reads from the request data.
func (r hclReport) u32(at int) uint32 { return binary.LittleEndian.Uint32(r.raw[hclRequest+at:]) }

// hardware is the report of the type that r.report says.
func (r hclReport) hardware() []byte {
	if r.report == hclTDX {
		return r.raw[hclHardware : hclHardware+tdreportSize]
	}
	return r.raw[hclHardware : hclHardware+reportSize]
}

// reportData is what the hardware has signed, or its module has authenticated.
func (r hclReport) reportData() [evidence.ReportDataSize]byte {
	if r.report == hclTDX {
		return [evidence.ReportDataSize]byte(r.hardware()[tdreportData:])
	}
	return [evidence.ReportDataSize]byte(r.hardware()[reportInput:])
}

// bound checks that the hardware report speaks of these claims. Verifiers look
// at the first half of the report data alone, and the other half is zero.
func (r hclReport) bound() error {
	if h := r.u32(12); h != hclSHA256 {
		return evidence.PlatformUnsupported.Wrap(fmt.Errorf("HCL report hashes its claims by algorithm %d, verifiers know SHA-256 alone: %w", h, errdefs.ErrNotImplemented))
	}
	data, digest := r.reportData(), sha256.Sum256(r.claims)
	if !bytes.Equal(data[:len(digest)], digest[:]) {
		return evidence.DriverReply.Wrap(fmt.Errorf("HCL report has claims that the hardware does not vouch for: %w", errdefs.ErrDataLoss))
	}
	return nil
}

// hclStatement is a report and what its claims say.
type hclStatement struct {
	hclReport
	key      *rsa.PublicKey // of the vTPM's attestation key
	userData []byte         // 64 bytes: what the guest left for the paravisor, and zeros
}

// statement reads the claims.
func (r hclReport) statement() (hclStatement, error) {
	var claims struct {
		Keys     []hclJWK `json:"keys"`
		UserData string   `json:"user-data"` // absent before the guest has left any
	}
	if err := json.Unmarshal(r.claims, &claims); err != nil {
		return hclStatement{}, hclFault("has claims that are not JSON")
	}
	data, err := hex.DecodeString(claims.UserData)
	if err != nil || len(data) > evidence.ReportDataSize {
		return hclStatement{}, hclFault("has malformed user-data")
	}
	for _, k := range claims.Keys {
		if k.ID == hclKey {
			key, err := k.rsa()
			return hclStatement{r, key, data}, err
		}
	}
	return hclStatement{}, hclFault("has no key %s", hclKey)
}

// hclJWK is an RSA key, base64url without padding.
type hclJWK struct {
	ID   string `json:"kid"`
	Type string `json:"kty"`
	N    string `json:"n"`
	E    string `json:"e"`
}

func (k hclJWK) rsa() (*rsa.PublicKey, error) {
	n, errN := base64.RawURLEncoding.DecodeString(k.N)
	e, errE := base64.RawURLEncoding.DecodeString(k.E)
	exponent := new(big.Int).SetBytes(e)
	if errN != nil || errE != nil || k.Type != "RSA" || len(n) < 256 || len(n) > 512 || exponent.BitLen() > 31 {
		return nil, hclFault("has a key %s that is no RSA key of 2048 to 4096 bits", hclKey)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}
