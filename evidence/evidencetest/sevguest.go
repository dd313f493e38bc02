package evidencetest

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// SEVGuest is /dev/sev-guest as Linux' driver of that name serves it: it takes
// the requests and returns the errors of include/uapi/linux/sev-guest.h, and
// after an error of the firmware it asks no more.
type SEVGuest struct {
	Platform *SNP
	// Host may change what comes from host and firmware. It is called for one
	// request at a time, and the request lasts until it returns.
	Host func(command uint32, a *SNPAnswer)

	mu       sync.Mutex // guards the rest, and the platform
	disabled bool
	asked    map[uint32]int
}

// SNPAnswer is what host and firmware give to the driver.
type SNPAnswer struct {
	// Exit is 0, an error of the firmware, or one of the host in the upper half.
	Exit     uint64
	Response [SNPResponse]byte // status u32, size of the report u32, zeros to 0x20, report
	Table    []byte            // of certificates
}

// The requests, and the errors of a host.
const (
	SNPGetReport    = 0xc0205300
	SNPGetExtReport = 0xc0205302
	SNPInvalidLen   = 1 << 32
	SNPBusy         = 2 << 32
)

// SNPResponse is the size of struct snp_report_resp.
const SNPResponse = 4000

const (
	snpRequest    = 96          // struct snp_report_req
	snpExtRequest = 112         // struct snp_ext_report_req
	maxCertBlob   = 16 << 10    // SEV_FW_BLOB_MAX_SIZE
	certsPage     = 4 << 10     // the unit of the buffer for certificates
	noFirmware    = uint64(255) // SEV_RET_NO_FW_CALL
)

// Node is where the device is.
func (*SEVGuest) Node() string { return "/dev/sev-guest" }

// Asked counts the requests of a kind.
func (d *SEVGuest) Asked(command uint32) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[command]
}

// Ioctl reads struct snp_guest_request_ioctl: version u8, padded, addresses of
// request and response, and writes into its last member how the host exited.
func (d *SEVGuest) Ioctl(m Memory, command uint32, arg uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var head [32]byte
	if _, err := m.ReadAt(head[:], int64(arg)); err != nil {
		return err
	}
	if head[0] == 0 {
		return unix.EINVAL
	}
	r := snpCall{m: m, exit: noFirmware, request: int64(binary.NativeEndian.Uint64(head[8:])), response: int64(binary.NativeEndian.Uint64(head[16:]))}
	err := d.request(command, &r)
	if r.exit != 0 {
		if _, err := m.WriteAt(binary.NativeEndian.AppendUint64(nil, r.exit), int64(arg)+24); err != nil {
			return err
		}
	}
	return err
}

// snpCall is one request.
type snpCall struct {
	m                 Memory
	exit              uint64
	request, response int64
	certs             int64  // address of the buffer for certificates
	length            uint32 // of that buffer
}

func (d *SEVGuest) request(command uint32, r *snpCall) error {
	size := map[uint32]int{SNPGetReport: snpRequest, SNPGetExtReport: snpExtRequest}[command]
	switch {
	case size == 0:
		return unix.ENOTTY
	case r.request == 0 || r.response == 0:
		return unix.EINVAL
	}
	b := make([]byte, size)
	if _, err := r.m.ReadAt(b, r.request); err != nil {
		return err
	}
	if command == SNPGetExtReport {
		r.certs, r.length = int64(binary.NativeEndian.Uint64(b[96:])), binary.NativeEndian.Uint32(b[104:])
		if r.certs == 0 {
			r.length = 0
		}
		if r.length > maxCertBlob || r.length%certsPage != 0 {
			return unix.EINVAL
		}
	}
	if d.disabled {
		return unix.ENOTTY
	}
	a, err := d.ask(command, [64]byte(b))
	if err != nil {
		return err
	}
	return d.finish(command, r, a)
}

// ask asks host and firmware.
func (d *SEVGuest) ask(command uint32, in [64]byte) (*SNPAnswer, error) {
	if d.asked == nil {
		d.asked = map[uint32]int{}
	}
	d.asked[command]++
	report, err := d.Platform.Report(in)
	if err != nil {
		return nil, err
	}
	a := &SNPAnswer{}
	binary.LittleEndian.PutUint32(a.Response[4:], uint32(len(report)))
	copy(a.Response[0x20:], report)
	if command == SNPGetExtReport {
		a.Table = d.Platform.Table()
	}
	if d.Host != nil {
		d.Host(command, a)
	}
	return a, nil
}

// finish copies to the caller. A buffer that is too small for the certificates
// is the one error after which the driver goes on; it tells the size.
func (d *SEVGuest) finish(command uint32, r *snpCall, a *SNPAnswer) error {
	r.exit = a.Exit
	if command == SNPGetExtReport && a.Exit == 0 && len(a.Table) > int(r.length) {
		r.exit = SNPInvalidLen
	}
	switch {
	case r.exit == SNPInvalidLen && command == SNPGetExtReport:
		needed := (len(a.Table) + certsPage - 1) / certsPage * certsPage
		if _, err := r.m.WriteAt(binary.NativeEndian.AppendUint32(nil, uint32(needed)), r.request+104); err != nil {
			return err
		}
		return unix.EIO
	case r.exit == SNPBusy: // for as long as the driver tries
		d.disabled = true
		return unix.ETIMEDOUT
	case r.exit != 0:
		d.disabled = true
		return unix.EIO
	}
	if r.length > 0 {
		certs := make([]byte, r.length)
		copy(certs, a.Table)
		if _, err := r.m.WriteAt(certs, r.certs); err != nil {
			return err
		}
	}
	_, err := r.m.WriteAt(a.Response[:], r.response)
	return err
}
