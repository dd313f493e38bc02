package evidencetest

import (
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// Platform is a processor with a root of its own. It is not safe for concurrent
// use.
type Platform interface {
	// Provider is how the kernel's report interface calls it.
	Provider() string
	// Launch starts a guest: the host measures the image and hands over the
	// digest of its initdata, nil for none.
	Launch(measurement [48]byte, digest []byte)
	// Sign makes a report over in, and the certificates that the host keeps for
	// it where the platform has such.
	Sign(in [64]byte) (report, certs []byte, err error)
	// Trust has its root in place of the vendor's.
	Trust() verify.Options
}

// Provider is sev_guest.
func (s *SNP) Provider() string { return "sev_guest" }

// Launch sets the measurement and HOST_DATA.
func (s *SNP) Launch(measurement [48]byte, digest []byte) {
	s.Measurement, s.HostData = measurement, [32]byte(initdata.Pad(digest, 32))
}

// Trust has the chain of VCEKs.
func (s *SNP) Trust() verify.Options {
	root, between := s.Roots()
	return verify.Options{SNPRoots: []verify.SNPChain{{Product: "Milan", Kind: "VCEK", Root: root, Between: between}}}
}

// Provider is tdx_guest.
func (p *TDX) Provider() string { return "tdx_guest" }

// Launch sets MRTD and MRCONFIGID.
func (p *TDX) Launch(measurement [48]byte, digest []byte) {
	p.MRTD, p.MRConfigID = measurement, [48]byte(initdata.Pad(digest, 48))
}

// Trust has the root of PCK certificates.
func (p *TDX) Trust() verify.Options { return verify.Options{TDXRoots: p.Roots()} }

// Provider is arm_cca_guest.
func (c *CCA) Provider() string { return "arm_cca_guest" }

// Launch sets the initial measurement, which is shorter than others, and the
// personalization value.
func (c *CCA) Launch(measurement [48]byte, digest []byte) {
	copy(c.Initial[:], measurement[:])
	c.Personalization = [64]byte(initdata.Pad(digest, 64))
}

// Trust is nobody's: package verify does not know tokens of CCA.
func (c *CCA) Trust() verify.Options { return verify.Options{} }
