package tee

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// snpReport is an attestation report as the security processor writes it (SEV
// Secure Nested Paging Firmware ABI, ATTESTATION_REPORT).
type snpReport []byte

const (
	reportSize      = 1184
	reportInput     = 0x50 // report data
	reportSignature = 0x2a0
)

// parseReport cuts a report out of a longer answer. It looks at nothing in it.
func parseReport(raw []byte) (snpReport, error) {
	if len(raw) < reportSize {
		return nil, evidence.DriverReply.Wrap(fmt.Errorf("report of %d bytes is too short: %w", len(raw), errdefs.ErrInvalidArgument))
	}
	return snpReport(raw[:reportSize]), nil
}

func (r snpReport) u32(at int) uint32 { return binary.LittleEndian.Uint32(r[at:]) }
func (r snpReport) u64(at int) uint64 { return binary.LittleEndian.Uint64(r[at:]) }

func (r snpReport) hostData() []byte { return bytes.Clone(r[0xc0:0xe0]) }

// signer identifies the key that signs reports: it is derived from the chip
// and the version of the firmware.
func (r snpReport) signer() []byte { return append(bytes.Clone(r[0x180:0x188]), r[0x1a0:0x1e0]...) }

// snpFields are the members that Trustee reads, which are those of the crate
// sev: bytes are lists of numbers, so they are arrays here and not slices, and
// what a version or a processor does not have is null.
type snpFields struct {
	Version         uint32     `json:"version"`
	GuestSVN        uint32     `json:"guest_svn"`
	Policy          uint64     `json:"policy"`
	FamilyID        [16]byte   `json:"family_id"`
	ImageID         [16]byte   `json:"image_id"`
	VMPL            uint32     `json:"vmpl"`
	SigAlgo         uint32     `json:"sig_algo"`
	CurrentTCB      snpTCB     `json:"current_tcb"`
	PlatInfo        uint64     `json:"plat_info"`
	KeyInfo         uint32     `json:"key_info"`
	ReportData      [64]byte   `json:"report_data"`
	Measurement     [48]byte   `json:"measurement"`
	HostData        [32]byte   `json:"host_data"`
	IDKeyDigest     [48]byte   `json:"id_key_digest"`
	AuthorKeyDigest [48]byte   `json:"author_key_digest"`
	ReportID        [32]byte   `json:"report_id"`
	ReportIDMA      [32]byte   `json:"report_id_ma"`
	ReportedTCB     snpTCB     `json:"reported_tcb"`
	Family          uint8      `json:"cpuid_fam_id"`
	Model           uint8      `json:"cpuid_mod_id"`
	Stepping        uint8      `json:"cpuid_step"`
	ChipID          [64]byte   `json:"chip_id"`
	CommittedTCB    snpTCB     `json:"committed_tcb"`
	Current         snpVersion `json:"current"`
	Committed       snpVersion `json:"committed"`
	LaunchTCB       snpTCB     `json:"launch_tcb"`
	LaunchMIT       *uint64    `json:"launch_mit_vector,omitempty"`
	CurrentMIT      *uint64    `json:"current_mit_vector,omitempty"`
	Signature       struct {
		R [72]byte `json:"r"`
		S [72]byte `json:"s"`
	} `json:"signature"`
}

type snpTCB struct {
	FMC        *uint8 `json:"fmc"`
	Bootloader uint8  `json:"bootloader"`
	TEE        uint8  `json:"tee"`
	SNP        uint8  `json:"snp"`
	Microcode  uint8  `json:"microcode"`
}

type snpVersion struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
	Build uint8 `json:"build"`
}

// fields checks what a verifier would refuse as a bad signature or without
// telling this guest why, and takes the report apart.
func (r snpReport) fields(in [64]byte) (*snpFields, error) {
	if err := r.check(in); err != nil {
		return nil, evidence.PlatformUnsupported.Wrap(err)
	}
	tcb, err := tcbLayout(r[0x188], r[0x189])
	if err != nil {
		return nil, evidence.PlatformUnsupported.Wrap(err)
	}
	f := &snpFields{
		Version: r.u32(0), GuestSVN: r.u32(4), Policy: r.u64(8),
		FamilyID: [16]byte(r[0x10:]), ImageID: [16]byte(r[0x20:]), VMPL: r.u32(0x30), SigAlgo: r.u32(0x34),
		CurrentTCB: tcb(r[0x38:]), PlatInfo: r.u64(0x40), KeyInfo: r.u32(0x48),
		ReportData: [64]byte(r[0x50:]), Measurement: [48]byte(r[0x90:]), HostData: [32]byte(r[0xc0:]),
		IDKeyDigest: [48]byte(r[0xe0:]), AuthorKeyDigest: [48]byte(r[0x110:]),
		ReportID: [32]byte(r[0x140:]), ReportIDMA: [32]byte(r[0x160:]), ReportedTCB: tcb(r[0x180:]),
		Family: r[0x188], Model: r[0x189], Stepping: r[0x18a], ChipID: [64]byte(r[0x1a0:]),
		CommittedTCB: tcb(r[0x1e0:]), Current: firmware(r[0x1e8:]), Committed: firmware(r[0x1ec:]), LaunchTCB: tcb(r[0x1f0:]),
	}
	if f.Version >= 5 {
		launch, current := r.u64(0x1f8), r.u64(0x200)
		f.LaunchMIT, f.CurrentMIT = &launch, &current
	}
	f.Signature.R, f.Signature.S = [72]byte(r[reportSignature:]), [72]byte(r[reportSignature+72:])
	return f, nil
}

func (r snpReport) check(in [64]byte) error {
	switch v := r.u32(0); {
	case v == 2:
		return fmt.Errorf("report has version 2, which verifiers refuse: the host's firmware is too old: %w", errdefs.ErrFailedPrecondition)
	case v < 3 || v > 5:
		return fmt.Errorf("report has version %d, verifiers read 3, 4 and 5: %w", v, errdefs.ErrNotImplemented)
	}
	if v := r.u32(0x30); v != 0 {
		return fmt.Errorf("report is for VMPL %d, verifiers accept 0 alone: %w", v, errdefs.ErrFailedPrecondition)
	}
	if [64]byte(r[reportInput:]) != in {
		return evidence.DriverReply.Wrap(fmt.Errorf("report carries other report data: %w", errdefs.ErrDataLoss))
	}
	// The JSON form has no place for these bytes, so the signature would fail.
	reserved := [][2]int{{0x4c, 0x50}, {0x18b, 0x1a0}, {0x1eb, 0x1ec}, {0x1ef, 0x1f0}, {0x208, reportSignature}, {reportSignature + 144, reportSize}}
	if r.u32(0) < 5 {
		reserved = append(reserved, [2]int{0x1f8, 0x208})
	}
	for _, part := range reserved {
		if len(bytes.Trim(r[part[0]:part[1]], "\x00")) != 0 {
			return fmt.Errorf("report has content at %#x that version %d reserves: %w", part[0], r.u32(0), errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// tcbLayout says where the versions stand in a TCB of the processor family.
func tcbLayout(family, model byte) (func([]byte) snpTCB, error) {
	switch {
	case family == 0x19 && (model <= 0x1f || model >= 0xa0 && model <= 0xaf): // Milan, Genoa and its kin
		return func(b []byte) snpTCB {
			return snpTCB{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
		}, nil
	case family == 0x1a && model <= 0x11: // Turin
		return func(b []byte) snpTCB {
			fmc := b[0]
			return snpTCB{FMC: &fmc, Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
		}, nil
	}
	return nil, fmt.Errorf("report is of an unknown processor, family %#x, model %#x: %w", family, model, errdefs.ErrNotImplemented)
}

func firmware(b []byte) snpVersion { return snpVersion{Build: b[0], Minor: b[1], Major: b[2]} }
