package verify

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	library "github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

// errNoVEK says that there is nothing to check the signature with.
var errNoVEK = fmt.Errorf("no endorsement certificate: %w", errdefs.ErrNotFound)

// SNPChain vouches for the endorsement keys of a line of processors.
type SNPChain struct {
	Product string // Milan, Genoa or Turin
	Kind    string // VCEK or VLEK
	Root    *x509.Certificate
	Between *x509.Certificate // ASK, or ASVK for VLEK
}

// amdChains are AMD's own, as the library carries them.
func amdChains() []SNPChain {
	var chains []SNPChain
	for _, c := range []struct {
		product, kind string
		text          []byte
	}{
		{"Milan", "VCEK", trust.AskArkMilanVcekBytes}, {"Milan", "VLEK", trust.AskArkMilanVlekBytes},
		{"Genoa", "VCEK", trust.AskArkGenoaVcekBytes}, {"Genoa", "VLEK", trust.AskArkGenoaVlekBytes},
		{"Turin", "VCEK", trust.AskArkTurinVcekBytes}, {"Turin", "VLEK", trust.AskArkTurinVlekBytes},
	} {
		between, rest := pem.Decode(c.text)
		root, _ := pem.Decode(rest)
		if between == nil || root == nil {
			continue // the bundle is part of the library; its test would have failed
		}
		ask, err1 := x509.ParseCertificate(between.Bytes)
		ark, err2 := x509.ParseCertificate(root.Bytes)
		if err1 == nil && err2 == nil {
			chains = append(chains, SNPChain{c.product, c.kind, ark, ask})
		}
	}
	return chains
}

// chainOf finds the chain that vouches for the key, among those for the
// processor that the report names.
func (o Options) chainOf(vek *x509.Certificate, r report) (SNPChain, error) {
	chains := o.SNPRoots
	if chains == nil {
		chains = amdChains()
	}
	product := r.product()
	reason := unknown("no roots for %s", product)
	for _, c := range chains {
		if product != "" && c.Product != product || vek.Subject.CommonName != "SEV-"+c.Kind {
			continue
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(c.Root)
		between.AddCert(c.Between)
		_, err := vek.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: o.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil {
			return c, nil
		}
		reason = forged("endorsement certificate: %v", err)
	}
	return SNPChain{}, reason
}

// tcb is the versions of a processor's firmware.
type tcb struct{ fmc, bootloader, tee, snp, microcode uint8 }

func (t tcb) String() string {
	return fmt.Sprintf("fmc %d, bootloader %d, tee %d, snp %d, microcode %d", t.fmc, t.bootloader, t.tee, t.snp, t.microcode)
}

func tcbOf(b []byte, product string) tcb {
	if product == "Turin" {
		return tcb{b[0], b[1], b[2], b[3], b[7]}
	}
	return tcb{0, b[0], b[1], b[6], b[7]}
}

// vekExtensions are what a certificate says about its key (AMD: Versioned Chip
// Endorsement Key Certificate and KDS Interface Specification).
type vekExtensions struct {
	tcb  tcb
	chip []byte // of a VCEK
}

func readVEK(vek *x509.Certificate) (ext vekExtensions, err error) {
	amd := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}
	for _, e := range vek.Extensions {
		if len(e.Id) <= len(amd) || !e.Id[:len(amd)].Equal(amd) {
			continue
		}
		var to *uint8
		switch rest := e.Id[len(amd):]; {
		case rest.Equal(asn1.ObjectIdentifier{4}):
			if ext.chip = e.Value; len(e.Value) > 2 && e.Value[0] == asn1.TagOctetString && int(e.Value[1]) == len(e.Value)-2 {
				ext.chip = e.Value[2:]
			}
			continue
		case rest.Equal(asn1.ObjectIdentifier{3, 1}):
			to = &ext.tcb.bootloader
		case rest.Equal(asn1.ObjectIdentifier{3, 2}):
			to = &ext.tcb.tee
		case rest.Equal(asn1.ObjectIdentifier{3, 3}):
			to = &ext.tcb.snp
		case rest.Equal(asn1.ObjectIdentifier{3, 8}):
			to = &ext.tcb.microcode
		case rest.Equal(asn1.ObjectIdentifier{3, 9}):
			to = &ext.tcb.fmc
		default:
			continue
		}
		var n int
		if _, err := asn1.Unmarshal(e.Value, &n); err != nil || n < 0 || n > 0xff {
			return ext, malformed("extension %s of the endorsement certificate", e.Id)
		}
		*to = uint8(n)
	}
	return ext, nil
}

// libraryReport is the second opinion, on the processors whose names the
// library knows exactly. Of Turin it reads the TCB in the wrong places.
func libraryReport(r report, vek *x509.Certificate, chain SNPChain, o Options) (err error) {
	family, model := r[0x188], r[0x189]
	if chain.Kind != "VCEK" || r.u32(0) < 3 || family != 0x19 || model != 0x01 && model != 0x11 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = malformed("go-sev-guest cannot read it: %v", p)
		}
	}()
	pb, err := abi.ReportToProto(r)
	if err != nil {
		return malformed("go-sev-guest: %v", err)
	}
	err = library.SnpAttestation(&spb.Attestation{
		Report: pb,
		CertificateChain: &spb.CertificateChain{
			VcekCert: vek.Raw, AskCert: chain.Between.Raw, ArkCert: chain.Root.Raw,
		},
	}, &library.Options{
		DisableCertFetching: true, Now: o.now(),
		TrustedRoots: map[string][]*trust.AMDRootCerts{chain.Product: {{
			ProductLine: chain.Product, Product: chain.Product,
			ProductCerts: &trust.ProductCerts{Ark: chain.Root, Ask: chain.Between},
		}}},
	})
	if err != nil {
		return forged("go-sev-guest: %v", err)
	}
	return nil
}
