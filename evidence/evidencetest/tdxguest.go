package evidencetest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"golang.org/x/sys/unix"
)

// TDREPORT_STRUCT of the TDX module: a part that it authenticates with a key of
// the processor, then TDINFO_STRUCT, whose digest stands in the first.
const (
	tdreportSize = 1024
	tdreportData = 128
	tdreportMAC  = 224
	tdInfo       = 512
)

// Report makes a report of the TDX module, which the quoting service of the same
// platform takes for its own.
func (p *TDX) Report(in [64]byte) []byte {
	r := make([]byte, tdreportSize)
	r[0] = 0x81 // of a TD
	copy(r[tdreportData:], in[:])
	info := r[tdInfo:]
	if p.Debug {
		info[0] = 1
	}
	copy(info[16:], p.MRTD[:])
	copy(info[64:], p.MRConfigID[:])
	for i, m := range p.RTMR {
		copy(info[208+48*i:], m[:])
	}
	digest := sha512.Sum384(info)
	copy(r[80:], digest[:])
	copy(r[tdreportMAC:], p.mac(r))
	return r
}

func (p *TDX) mac(report []byte) []byte {
	h := hmac.New(sha256.New, p.root.Raw)
	h.Write(report[:tdreportMAC])
	return h.Sum(nil)
}

// reported returns the report data, if the report is of this platform.
func (p *TDX) reported(r []byte) (in [64]byte, err error) {
	digest := sha512.Sum384(r[tdInfo:])
	if !hmac.Equal(r[tdreportMAC:tdreportMAC+32], p.mac(r)) || !bytes.Equal(r[80:128], digest[:]) {
		return in, fmt.Errorf("report of another processor")
	}
	return [64]byte(r[tdreportData:]), nil
}

// TDXGuest is /dev/tdx_guest as Linux' driver serves it
// (include/uapi/linux/tdx-guest.h).
type TDXGuest struct {
	Platform *TDX
	// Module may change a report on its way. The request lasts until it returns.
	Module func(report []byte) error
}

// TDXGetReport0 is TDX_CMD_GET_REPORT0, with 64 bytes of report data and then
// the report.
const TDXGetReport0 = 0xc4405401

// Node is where the device is.
func (*TDXGuest) Node() string { return "/dev/tdx_guest" }

// Ioctl answers the one request there is.
func (d *TDXGuest) Ioctl(m Memory, command uint32, arg uint64) error {
	if command != TDXGetReport0 {
		return unix.ENOTTY
	}
	var in [64]byte
	if _, err := m.ReadAt(in[:], int64(arg)); err != nil {
		return err
	}
	report := d.Platform.Report(in)
	if d.Module != nil {
		if err := d.Module(report); err != nil {
			return err
		}
	}
	_, err := m.WriteAt(report, int64(arg)+int64(len(in)))
	return err
}
