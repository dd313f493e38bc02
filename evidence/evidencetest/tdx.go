package evidencetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"
)

// TDX is a platform of Intel with a root of its own: its quoting enclave makes
// quotes and signs them. Set the fields before its first use.
type TDX struct {
	Version    uint16 // of quotes: 4, or 5 with the body of TDX 1.5; 4 unless set
	MRTD       [48]byte
	MRConfigID [48]byte
	RTMR       [4][48]byte
	Debug      bool
	SVN        [16]byte // security versions of the TDX module and its platform
	SVN2       [16]byte // of those that run now, in version 5; zeros for the same
	// Edit may change what is signed before it is.
	Edit func([]byte)
	// EditQE may change the report of the quoting enclave before it is signed.
	EditQE func([]byte)
	// Fault is what the platform answers instead of a quote.
	Fault error

	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	ca      *x509.Certificate // of the PCK certificate
	caKey   *ecdsa.PrivateKey
	chain   []byte // PEM: PCK, platform CA, root
	pck     *ecdsa.PrivateKey
	key     *ecdsa.PrivateKey // attestation key
}

// NewTDX is a platform with a fresh root.
func NewTDX(t testing.TB) *TDX {
	t.Helper()
	p, err := OpenTDX()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// OpenTDX is NewTDX for programs that are no test.
func OpenTDX() (*TDX, error) {
	p := &TDX{Version: 4}
	var issuer *x509.Certificate
	var signer *ecdsa.PrivateKey
	for i, name := range []string{"Intel SGX Root CA", "Intel SGX PCK Platform CA", "Intel SGX PCK Certificate"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := pckTemplate(name, int64(i+1))
		if issuer == nil {
			issuer, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
		if err != nil {
			return nil, fmt.Errorf("make certificate of %s: %w", name, err)
		}
		if issuer, err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
		signer = key
		p.chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), p.chain...)
		switch i {
		case 0:
			p.root, p.rootKey = issuer, key
		case 1:
			p.ca, p.caKey = issuer, key
		}
	}
	p.pck = signer
	var err error
	p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return p, err
}

func pckTemplate(name string, serial int64) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name, Organization: []string{"Intel Corporation"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		SignatureAlgorithm: x509.ECDSAWithSHA256, BasicConstraintsValid: true, IsCA: serial < 3,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if serial == 3 {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.SubjectKeyId = []byte("leaf")
		c.CRLDistributionPoints = []string{"https://platform.example/crl"}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, Value: sgxExtensions()}}
	}
	return c
}

// FMSPC is the family of the platform in its PCK certificate.
const FMSPC = "50806f000000"

// sgxExtensions are those of a PCK certificate: PPID, TCB, PCEID, FMSPC, type.
func sgxExtensions() []byte {
	type field struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	oid := func(tail ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, tail...)
	}
	var tcb []field
	for i := 1; i <= 16; i++ {
		tcb = append(tcb, field{oid(2, i), 3})
	}
	tcb = append(tcb, field{oid(2, 17), 11}, field{oid(2, 18), make([]byte, 16)})
	fmspc, _ := hex.DecodeString(FMSPC)
	der, err := asn1.Marshal([]field{
		{oid(1), make([]byte, 16)}, {oid(2), tcb}, {oid(3), make([]byte, 2)}, {oid(4), fmspc}, {oid(5), asn1.Enumerated(1)},
	})
	if err != nil {
		panic(err) // the structure is fixed
	}
	return der
}

// Roots holds the platform's root.
func (p *TDX) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.root)
	return pool
}

// Sign fits TSM.
func (p *TDX) Sign(in [64]byte) (out, aux []byte, err error) {
	if p.Fault != nil {
		return nil, nil, p.Fault
	}
	out, err = p.Quote(in)
	return out, nil, err
}

// Quote makes and signs a quote.
func (p *TDX) Quote(in [64]byte) ([]byte, error) {
	signed := p.header()
	if p.Version == 5 {
		signed = binary.LittleEndian.AppendUint16(signed, 3)
		signed = binary.LittleEndian.AppendUint32(signed, 648)
	}
	signed = append(signed, p.body(in)...)
	if p.Edit != nil {
		p.Edit(signed)
	}
	signature, err := sign(p.key, signed)
	if err != nil {
		return nil, err
	}
	certification, err := p.certification()
	if err != nil {
		return nil, err
	}
	data := append(signature, point(&p.key.PublicKey)...)
	data = binary.LittleEndian.AppendUint16(data, 6)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(certification)))
	data = append(data, certification...)
	q := binary.LittleEndian.AppendUint32(signed, uint32(len(data)))
	return append(q, data...), nil
}

// intelQE is the vendor that every quoting enclave of Intel names.
var intelQE = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

func (p *TDX) header() []byte {
	h := make([]byte, 48)
	binary.LittleEndian.PutUint16(h, p.Version)
	binary.LittleEndian.PutUint16(h[2:], 2)
	binary.LittleEndian.PutUint32(h[4:], 0x81)
	copy(h[12:], intelQE)
	return h
}

func (p *TDX) body(in [64]byte) []byte {
	size := 584
	if p.Version == 5 {
		size = 648
	}
	b := make([]byte, size)
	b[123] = 0x10 // SEPT_VE_DISABLE, as every Linux guest has
	if p.Debug {
		b[120] = 1
	}
	copy(b[136:], p.MRTD[:])
	copy(b[184:], p.MRConfigID[:])
	for i, r := range p.RTMR {
		copy(b[328+48*i:], r[:])
	}
	copy(b, p.SVN[:])
	copy(b[520:], in[:])
	if p.Version == 5 {
		now := p.SVN2
		if now == ([16]byte{}) {
			now = p.SVN
		}
		copy(b[584:], now[:])
	}
	return b
}

// certification is the report of the quoting enclave over the attestation key.
func (p *TDX) certification() ([]byte, error) {
	auth := []byte("authentication data of the quoting")
	report := make([]byte, 384)
	report[48] = 0x15 // attributes: INIT, MODE64BIT, PROVISIONKEY
	copy(report[128:], intelSigner())
	binary.LittleEndian.PutUint16(report[256:], 2) // product of the quoting enclave for TDX
	binary.LittleEndian.PutUint16(report[258:], 4)
	sum := sha256.Sum256(append(point(&p.key.PublicKey), auth...))
	copy(report[320:], sum[:])
	if p.EditQE != nil {
		p.EditQE(report)
	}
	signature, err := sign(p.pck, report)
	if err != nil {
		return nil, err
	}
	c := append(report, signature...)
	c = binary.LittleEndian.AppendUint16(c, uint16(len(auth)))
	c = append(c, auth...)
	c = binary.LittleEndian.AppendUint16(c, 5)
	c = binary.LittleEndian.AppendUint32(c, uint32(len(p.chain)))
	return append(c, p.chain...), nil
}

func intelSigner() []byte {
	b, _ := hex.DecodeString("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
	return b
}

func sign(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
}

// point is x ‖ y.
func point(key *ecdsa.PublicKey) []byte {
	b, err := key.Bytes()
	if err != nil {
		panic(err) // the key was generated here
	}
	return b[1:]
}
