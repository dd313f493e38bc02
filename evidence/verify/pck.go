package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"slices"
)

// pckExtensions are what a PCK certificate says of the platform (Intel: SGX PCK
// Certificate and CRL Profile).
type pckExtensions struct {
	fmspc  string // family and model, in hex
	pceID  string // in hex
	svn    [16]byte
	pceSVN uint16
}

// oidSGX is the extension; its fields have numbers below it.
var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// numbered is a field of the extension.
type numbered struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// under is the number of a field below a prefix, 0 for another field.
func (n numbered) under(prefix asn1.ObjectIdentifier) int {
	if len(n.ID) != len(prefix)+1 || !n.ID[:len(prefix)].Equal(prefix) {
		return 0
	}
	return n.ID[len(prefix)]
}

// readPCK leaves empty what the certificate does not tell.
func readPCK(leaf *x509.Certificate) (p pckExtensions) {
	at := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSGX) })
	if at < 0 {
		return p
	}
	var fields []numbered
	if _, err := asn1.Unmarshal(leaf.Extensions[at].Value, &fields); err != nil {
		return p
	}
	for _, f := range fields {
		switch f.under(oidSGX) {
		case 2:
			p.readTCB(f.Value.FullBytes)
		case 3:
			p.pceID = hex.EncodeToString(f.Value.Bytes)
		case 4:
			p.fmspc = hex.EncodeToString(f.Value.Bytes)
		}
	}
	return p
}

// readTCB reads the versions of 16 components and of the PCE.
func (p *pckExtensions) readTCB(der []byte) {
	var fields []numbered
	if _, err := asn1.Unmarshal(der, &fields); err != nil {
		return
	}
	for _, f := range fields {
		var n int
		if _, err := asn1.Unmarshal(f.Value.FullBytes, &n); err != nil || n < 0 {
			continue // CPUSVN, which is no number
		}
		switch at := f.under(append(slices.Clone(oidSGX), 2)); {
		case at >= 1 && at <= 16 && n <= 0xff:
			p.svn[at-1] = byte(n)
		case at == 17 && n <= 0xffff:
			p.pceSVN = uint16(n)
		}
	}
}
