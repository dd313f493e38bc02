package verify

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
)

// Layout of the report that Azure's paravisor (HCL) leaves in the vTPM: a
// header, the processor's report in a fixed room, and what the processor's
// report vouches for by a hash.
const (
	hclHeader   = 32
	hclHardware = 1184
	hclSNP      = 2
	hclTDX      = 4
	hclSHA256   = 1
)

// hclReport is the paravisor's report taken apart.
type hclReport struct {
	hardware []byte // SNP report, or TDREPORT
	kind     uint32
	claims   []byte // JSON, whose SHA-256 begins the report data of the hardware
	ak       *rsa.PublicKey
	userData []byte
	config   map[string]json.RawMessage
}

// readHCL takes a report apart. Zeros may follow, as the vTPM's index is of
// fixed size.
func readHCL(raw []byte) (*hclReport, error) {
	c := cursor{rest: raw}
	if head := c.take(hclHeader); c.err == nil && !bytes.HasPrefix(head, []byte("HCLA")) {
		return nil, malformed("hcl_report is not one of Azure's")
	}
	h := &hclReport{hardware: c.take(hclHardware)}
	_, _ = c.u32(), c.u32() // size of all that follows, version
	h.kind = c.u32()
	if hash := c.u32(); c.err == nil && hash != hclSHA256 {
		return nil, unknown("hcl_report with a hash of type %d", hash)
	}
	if h.claims = c.take(int(c.u32())); c.err != nil {
		return nil, fmt.Errorf("hcl_report: %w", c.err)
	}
	return h, h.read()
}

func (h *hclReport) read() error {
	var claims struct {
		Keys []struct {
			ID   string `json:"kid"`
			Type string `json:"kty"`
			N    string `json:"n"`
			E    string `json:"e"`
		} `json:"keys"`
		Config   map[string]json.RawMessage `json:"vm-configuration"`
		UserData string                     `json:"user-data"`
	}
	if err := json.Unmarshal(h.claims, &claims); err != nil {
		return malformed("claims of hcl_report")
	}
	h.config = claims.Config
	user, err := hex.DecodeString(claims.UserData)
	if err != nil {
		return malformed("user-data of hcl_report")
	}
	h.userData = user
	for _, k := range claims.Keys {
		if k.ID != "HCLAkPub" || k.Type != "RSA" || h.ak != nil {
			continue
		}
		n, err1 := base64.RawURLEncoding.DecodeString(k.N)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		if err1 != nil || err2 != nil || len(n) > 512 || len(e) > 4 {
			return malformed("HCLAkPub of hcl_report")
		}
		h.ak = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	if h.ak == nil {
		return malformed("hcl_report has no HCLAkPub")
	}
	return nil
}

// vouched checks that the processor's signed report data carry the claims.
func (h *hclReport) vouched(reportData [64]byte) error {
	sum := sha256.Sum256(h.claims)
	if !bytes.Equal(sum[:], reportData[:len(sum)]) {
		return forged("claims of hcl_report are not those that the processor's report vouches for")
	}
	return nil
}

// facts are what the paravisor says of the machine: whether a console is open,
// whether secure boot is on.
func (h *hclReport) facts() []Fact {
	var list []Fact
	for name, v := range h.config {
		if len(v) <= 64 {
			list = append(list, Fact{"vm." + name, string(v)})
		}
	}
	slices.SortFunc(list, func(a, b Fact) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return list
}
