package evidencetest

import "golang.org/x/sys/unix"

// Machine is one platform and the interfaces that a guest's kernel has to it. Its
// JSON form holds the keys, so that a signer in another machine becomes the very
// platform that a test knows.
type Machine struct {
	Provider string // that configfs-tsm has; empty for none
	SEVGuest bool   // there is /dev/sev-guest
	TDXGuest bool   // there is /dev/tdx_guest
	// Mute never answers, as a host that keeps the hardware's answers back.
	Mute bool
	// Dies ends the signer at the first question.
	Dies bool

	SNP *SNP // one of the three
	TDX *TDX
	CCA *CCA
}

// Report signs.
func (m *Machine) Report(in [64]byte) (report, certs []byte, err error) {
	switch {
	case m.SNP != nil:
		return m.SNP.Sign(in)
	case m.TDX != nil:
		return m.TDX.Sign(in)
	case m.CCA != nil:
		return m.CCA.Sign(in)
	}
	return nil, nil, unix.ENODEV
}

// TDReport is that of the TDX module.
func (m *Machine) TDReport(in [64]byte) ([]byte, error) {
	if m.TDX == nil {
		return nil, unix.ENODEV
	}
	return m.TDX.Report(in), nil
}
