package evidencetest

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Where an Azure VM has its things in the vTPM.
const (
	azureReport = 0x01400001
	azureInput  = 0x01400002
	azureKey    = 0x81000003
	azureSize   = 2048 // of the report's index, which is the most that swtpm takes
)

// AzureVM is a confidential VM of Azure as its guest sees it: a TPM, which is
// swtpm, behind a paravisor that renews the HCL report when it is read; and the
// host's metadata service. Set the fields before the guest's first use.
type AzureVM struct {
	SNP *SNP // the hardware is this one
	TDX *TDX // or that one

	TPM  *SWTPM
	IMDS *IMDS

	// Stale is how many readings still find the report before, as they do on
	// Azure within two seconds of a renewal.
	Stale int
	// Deaf is a paravisor without an ear for the guest's data.
	Deaf bool
	// EditClaims may change the claims before the hardware vouches for them.
	EditClaims func(claims string) string
	// Edit may change the report afterwards.
	Edit func(report []byte)

	mu      sync.Mutex // guards what follows
	renewed int
	key     *rsa.PublicKey // of the TPM
}

// NewAzureVM starts one. Of the hardware one is nil.
func NewAzureVM(t testing.TB, snp *SNP, tdx *TDX) *AzureVM {
	t.Helper()
	a := &AzureVM{SNP: snp, TDX: tdx, TPM: StartSWTPM(t), IMDS: NewIMDS(t, snp, tdx)}
	a.TPM.AK(t, azureKey, RSAKey)
	a.TPM.Client(t, func(tpm transport.TPM) {
		var err error
		if a.key, err = readRSA(tpm, azureKey); err == nil {
			err = a.renew(tpm)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return a
}

// Renewed counts the reports that were made.
func (a *AzureVM) Renewed() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.renewed
}

// Dial connects the guest to its TPM.
func (a *AzureVM) Dial(t testing.TB) io.ReadWriteCloser {
	return &paravisor{a.TPM.Dial(t), a}
}

// paravisor sees each command before the TPM does.
type paravisor struct {
	io.ReadWriteCloser
	azure *AzureVM
}

// Write renews the report before a command begins to read it.
func (p *paravisor) Write(command []byte) (int, error) {
	be := binary.BigEndian
	n := len(command)
	if n > 20 && be.Uint32(command[6:]) == uint32(tpm2.TPMCCNVRead) && be.Uint32(command[14:]) == azureReport && be.Uint16(command[n-2:]) == 0 {
		if err := p.azure.renewal(transport.FromReadWriter(p.ReadWriteCloser)); err != nil {
			return 0, err
		}
	}
	return p.ReadWriteCloser.Write(command)
}

func (a *AzureVM) renewal(tpm transport.TPM) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Stale > 0 {
		a.Stale--
		return nil
	}
	return a.renew(tpm)
}

// renew makes a report of what the guest has left.
func (a *AzureVM) renew(tpm transport.TPM) error {
	input := make([]byte, 64)
	if !a.Deaf {
		if left, err := readNV(tpm, azureInput); err == nil {
			copy(input, left)
		}
	}
	report, err := a.report(input)
	if err != nil {
		return err
	}
	a.renewed++
	return writeNV(tpm, azureReport, report)
}

// report is an HCL report with the data.
func (a *AzureVM) report(data []byte) ([]byte, error) {
	claims := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"%s","n":"%s"}],`+
		`"vm-configuration":{"console-enabled":false,"secure-boot":true,"tpm-enabled":true,"vmUniqueId":"911B0EF8-9DBA-48B0-B275-4E4DF2D39252"},`+
		`"user-data":"%X"}`,
		base64.RawURLEncoding.EncodeToString(big.NewInt(int64(a.key.E)).Bytes()),
		base64.RawURLEncoding.EncodeToString(a.key.N.Bytes()), data)
	if a.EditClaims != nil {
		claims = a.EditClaims(claims)
	}
	digest := sha256.Sum256([]byte(claims))
	kind, hardware, err := a.hardware([64]byte(append(digest[:], make([]byte, 32)...)))
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	r := make([]byte, azureSize)
	copy(r, "HCLA")
	size := uint32(1236 + len(claims))
	for i, v := range []uint32{2, size, 2, 0} {
		le.PutUint32(r[4+4*i:], v)
	}
	copy(r[32:], hardware)
	for i, v := range []uint32{size - 1216, 1, kind, 1, uint32(len(claims))} {
		le.PutUint32(r[1216+4*i:], v)
	}
	copy(r[1236:], claims)
	if a.Edit != nil {
		a.Edit(r)
	}
	return r, nil
}

func (a *AzureVM) hardware(data [64]byte) (kind uint32, report []byte, err error) {
	if a.TDX != nil {
		return 4, a.TDX.Report(data), nil
	}
	report, err = a.SNP.Report(data)
	return 2, report, err
}

func readRSA(tpm transport.TPM, handle uint32) (*rsa.PublicKey, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	public, err := r.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, err
	}
	return key.(*rsa.PublicKey), nil
}

// nvStep is how much of an index swtpm reads or writes at once.
const nvStep = 1024

func readNV(tpm transport.TPM, index uint32) (data []byte, err error) {
	p, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	public, err := p.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	for size := int(public.DataSize); len(data) < size; {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: p.NVName},
			Size: uint16(min(nvStep, size-len(data))), Offset: uint16(len(data)),
		}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		data = append(data, r.Data.Buffer...)
	}
	return data, nil
}

// writeNV makes the index if it is not there.
func writeNV(tpm transport.TPM, index uint32, data []byte) error {
	p, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(tpm)
	if err != nil {
		_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NoDA: true},
		})}.Execute(tpm)
		if err != nil {
			return err
		}
		if p, err = (tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}).Execute(tpm); err != nil {
			return err
		}
	}
	name := p.NVName
	for at := 0; at < len(data); at += nvStep {
		if at > 0 { // the first writing changes the name
			if p, err = (tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}).Execute(tpm); err != nil {
				return err
			}
			name = p.NVName
		}
		_, err := tpm2.NVWrite{
			AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+nvStep, len(data))]}, Offset: uint16(at),
		}.Execute(tpm)
		if err != nil {
			return err
		}
	}
	return nil
}
