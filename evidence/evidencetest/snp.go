package evidencetest

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/client/linuxabi"
	snptest "github.com/google/go-sev-guest/testing"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// SNP is a security processor of AMD with a root of its own: it makes reports
// and signs them. Set the fields before its first use. It is not safe for
// concurrent use.
type SNP struct {
	Version     uint32 // of reports, 3 unless set
	HostData    [32]byte
	Measurement [48]byte
	VMPL        uint32
	Debug       bool
	// NoCerts leaves the host's table of certificates empty.
	NoCerts bool
	// ExtraCerts makes an entry of the table longer that nobody knows.
	ExtraCerts int
	// Fault is what the device answers instead of a report.
	Fault error
	// Edit may change a report before it is signed.
	Edit func([]byte)

	Asked    int // how many reports were made
	Extended int // of them with certificates

	signer *snptest.AmdSigner
}

// NewSNP is a Milan processor.
func NewSNP(t testing.TB) *SNP {
	t.Helper()
	s, err := OpenSNP()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// OpenSNP is NewSNP for programs that are no test.
func OpenSNP() (*SNP, error) {
	signer, err := snptest.DefaultTestOnlyCertChain("Milan-B1", time.Now().Add(-time.Hour))
	if err != nil {
		return nil, fmt.Errorf("make chain of certificates: %w", err)
	}
	return &SNP{Version: 3, signer: signer}, nil
}

// milanB1 is CPUID 1 EAX of the processor.
const milanB1 = 0x00a00f11

// Roots are the root and the certificate between it and the VCEK.
func (s *SNP) Roots() (root, between *x509.Certificate) { return s.signer.Ark, s.signer.Ask }

// VCEK is the certificate of the key that signs.
func (s *SNP) VCEK() *x509.Certificate { return s.signer.Vcek }

// Report makes and signs a report.
func (s *SNP) Report(in [64]byte) ([]byte, error) {
	s.Asked++
	padded := snptest.CreateRawReport(&snptest.TestReportOptions{ReportData: in[:], FMS: milanB1, Version: s.Version})
	r := padded[:abi.ReportSize]
	policy := abi.SnpPolicy{SMT: true, Debug: s.Debug}
	binary.LittleEndian.PutUint64(r[0x08:], abi.SnpPolicyToBytes(policy))
	binary.LittleEndian.PutUint32(r[0x30:], s.VMPL)
	copy(r[0x90:], s.Measurement[:])
	copy(r[0xc0:], s.HostData[:])
	copy(r[0x1a0:], s.signer.HWID[:])
	if s.Edit != nil {
		s.Edit(r)
	}
	x, y, err := s.signer.Sign(abi.SignedComponent(r))
	if err != nil {
		return nil, err
	}
	return r, abi.SetSignature(x, y, r)
}

// Table is what the host keeps: GUIDs with offsets and lengths, zeros, blobs.
// One entry is of a kind that nobody knows, and ExtraCerts longer than it has to be.
func (s *SNP) Table() []byte {
	if s.NoCerts {
		return nil
	}
	entries := []struct {
		guid string
		der  []byte
	}{
		{"ecae0c0f-9502-43b1-afa2-0ae2e0d565b6", append([]byte("extra platform info"), make([]byte, s.ExtraCerts)...)},
		{abi.AskGUID, s.signer.Ask.Raw}, {abi.VcekGUID, s.signer.Vcek.Raw}, {abi.ArkGUID, s.signer.Ark.Raw},
	}
	at := (len(entries) + 1) * abi.CertTableEntrySize
	table := make([]byte, at)
	for i, e := range entries {
		guid := uuid.MustParse(e.guid)
		head := table[i*abi.CertTableEntrySize:]
		copy(head, guid[:])
		binary.LittleEndian.PutUint32(head[16:], uint32(at))
		binary.LittleEndian.PutUint32(head[20:], uint32(len(e.der)))
		table = append(table, e.der...)
		at += len(e.der)
	}
	return table
}

// Sign fits TSM.
func (s *SNP) Sign(in [64]byte) (out, aux []byte, err error) {
	if s.Fault != nil {
		return nil, nil, s.Fault
	}
	s.Extended++
	out, err = s.Report(in)
	return out, s.Table(), err
}

// Ioctl answers as /dev/sev-guest does.
func (s *SNP) Ioctl(command uintptr, request any) (uintptr, error) {
	r, ok := request.(*linuxabi.SnpUserGuestRequest)
	if !ok {
		return 0, unix.EINVAL
	}
	if s.Fault != nil {
		return 0, s.Fault
	}
	var plain *linuxabi.SnpReportReqABI
	switch req := r.ReqData.(type) {
	case *linuxabi.SnpReportReqABI:
		plain = req
	case *linuxabi.SnpExtendedReportReq:
		table := s.Table()
		if plain = &req.Data; int(req.CertsLength) < len(table) || len(req.Certs) < len(table) || command != linuxabi.IocSnpGetExtendedReport {
			r.FwErr = uint64(abi.GuestRequestInvalidLength)
			return 0, unix.EIO
		}
		copy(req.Certs, table)
		s.Extended++
	default:
		return 0, errors.ErrUnsupported
	}
	report, err := s.Report(plain.ReportData)
	resp := r.RespData.(*linuxabi.SnpReportRespABI)
	resp.ReportSize = uint32(copy(resp.Data[:], report))
	return 0, err
}

// Close does nothing: the device is always open.
func (s *SNP) Close() error { return nil }
