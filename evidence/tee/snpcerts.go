package tee

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// certTypes are the entries of the host's table that a verifier reads, by
// their GUID as it stands in the table, in the order in which they are sent.
var certTypes = []struct {
	name string
	guid [16]byte
}{
	{"VCEK", [16]byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}},
	{"VLEK", [16]byte{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1}},
	{"ASK", [16]byte{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}},
	{"ARK", [16]byte{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}},
	{"CRL", [16]byte{0x92, 0xf8, 0x1b, 0xc3, 0x58, 0x11, 0x4d, 0x3d, 0x97, 0xff, 0xd1, 0x9f, 0x88, 0xdc, 0x67, 0xea}},
}

// snpCert is a certificate in DER. A verifier reads its bytes as numbers, which
// a slice of uint8 would not become.
type snpCert struct {
	Type string   `json:"cert_type"`
	Data []uint16 `json:"data"`
}

// Bounds of a table, which comes from the host.
const (
	certEntry  = 24
	maxCerts   = 32
	maxCertLen = 16 << 10
)

// parseCertTable returns the certificates of a table: entries of GUID, offset
// and length up to one of zeros, then what they point to. It skips entries of
// other kinds, those which point outside, and a second of its kind, with which
// a small table would become megabytes of evidence. A verifier can do without
// any, and judges those that it gets. Nil means none.
func parseCertTable(table []byte) []snpCert {
	var chain []snpCert
	for i := 0; i < maxCerts && (i+1)*certEntry <= len(table); i++ {
		e := table[i*certEntry:]
		guid := [16]byte(e)
		if guid == ([16]byte{}) {
			break
		}
		at, size := uint64(binary.LittleEndian.Uint32(e[16:])), uint64(binary.LittleEndian.Uint32(e[20:]))
		kind := slices.IndexFunc(certTypes, func(t struct {
			name string
			guid [16]byte
		}) bool {
			return t.guid == guid
		})
		if kind < 0 || size == 0 || size > maxCertLen || at+size > uint64(len(table)) {
			continue
		}
		if name := certTypes[kind].name; slices.ContainsFunc(chain, func(c snpCert) bool { return c.Type == name }) {
			continue
		}
		data := make([]uint16, size)
		for j, b := range table[at : at+size] {
			data[j] = uint16(b)
		}
		chain = append(chain, snpCert{certTypes[kind].name, data})
	}
	slices.SortStableFunc(chain, func(a, b snpCert) int { return cmp.Compare(rank(a.Type), rank(b.Type)) })
	return chain
}

func rank(name string) int {
	for i, t := range certTypes {
		if t.name == name {
			return i
		}
	}
	return len(certTypes)
}
