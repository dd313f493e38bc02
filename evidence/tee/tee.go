// Package tee knows the confidential platforms this binary can speak for.
// Each file holds one of them. To add one, write its file and put its Driver
// into Drivers; nothing else in the program changes.
package tee

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/tpm"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

// Driver is one platform. Present must not change anything in the system but
// for the moment of the call; Open is called only where Present is true.
type Driver struct {
	Kind    evidence.Kind
	Signs   string // what Present looks for, in words for an error
	Present func() bool
	Open    func() (evidence.Collector, error)
	// HostControlled is a platform that the host itself makes: it attests, and
	// keeps nothing from the host.
	HostControlled bool
	// Refused marks one that nobody speaks for. Open says why, and nothing else
	// of the entry is used where another platform is present.
	Refused bool
}

// Option changes where platforms are looked for.
type Option func(*host)

// Drivers returns the platforms in the order in which they are looked for: what
// hardware and kernel show comes before what a TPM says, since the host can put
// one into any machine, also with an HCL report of its own making. TDX is first,
// whose reports cannot be mistaken for another's, and a plain TPM last. At the
// end come platforms that are refused by name. The sample collector is not among
// them, so no search ends there. Without a dialer a TDX guest gets quotes only
// through the kernel's report interface.
func Drivers(qgs QGSDialer, options ...Option) []Driver {
	h := host{root: "/", reports: tsm.OS("/"), qgs: qgs, ioctl: ioctl, openSNP: openSNP, openTPM: tpm.Open}
	for _, o := range options {
		o(&h)
	}
	return h.drivers()
}

// Detect returns the collector of the platform that this guest runs on. With
// none present it wraps errdefs.ErrNotFound and says what was looked for, or
// which one it met that it refuses.
func Detect(ds []Driver) (evidence.Collector, error) {
	if d, ok := find(ds, false); ok {
		return d.Open()
	}
	if d, ok := find(ds, true); ok {
		return d.Open()
	}
	var looked []string
	for _, d := range ds {
		if !d.Refused {
			looked = append(looked, fmt.Sprintf("%s (%s)", d.Kind, d.Signs))
		}
	}
	return nil, evidence.PlatformNone.Wrap(fmt.Errorf("no confidential platform among %s: %w", strings.Join(looked, ", "), errdefs.ErrNotFound))
}

// Present reports whether this guest runs on any of the platforms that keep it
// from its host. A TPM does not.
func Present(ds []Driver) bool {
	for _, d := range ds {
		if !d.HostControlled && !d.Refused && d.Present() {
			return true
		}
	}
	return false
}

// Keeps reports whether a platform of the kind keeps the guest from its host.
func Keeps(kind evidence.Kind, ds []Driver) bool {
	return slices.ContainsFunc(ds, func(d Driver) bool { return d.Kind == kind && !d.HostControlled && !d.Refused })
}

// Select returns the collector that the configuration names. An empty name
// means Detect. Any other has to be the platform that is present, and sample
// is refused where one is present: a host that could switch a real guest to
// sample evidence would learn how lax its key broker is. A platform that the
// host controls does not stand in the way. A name that does not fit wraps
// errdefs.ErrFailedPrecondition.
func Select(name string, ds []Driver) (evidence.Collector, error) {
	if name == "" {
		return Detect(ds)
	}
	if name == string(evidence.Sample) && !Present(ds) {
		return Sample(), nil
	}
	d, found := find(ds, false)
	switch {
	case found && string(d.Kind) == name:
		return d.Open()
	case found:
		return nil, evidence.PlatformWrong.Wrap(fmt.Errorf("platform %s is configured but this is %s: %w", name, d.Kind, errdefs.ErrFailedPrecondition))
	}
	err := fmt.Errorf("platform %s is configured but not present: %w", name, errdefs.ErrFailedPrecondition)
	if d, refused := find(ds, true); refused {
		_, why := d.Open()
		err = errors.Join(err, why)
	}
	return nil, evidence.PlatformNone.Wrap(err)
}

// find returns the first entry that is present, among the refused or the others.
func find(ds []Driver, refused bool) (Driver, bool) {
	for _, d := range ds {
		if d.Refused == refused && d.Present() {
			return d, true
		}
	}
	return Driver{}, false
}

// host is where platforms are looked for and asked.
type host struct {
	root    string
	reports tsm.FS
	qgs     QGSDialer // may be nil
	ioctl   func(fd, command uintptr, arg unsafe.Pointer) error
	openSNP func(path string) (snpDevice, error)
	openTPM func(path string) (*tpm.Device, error)

	tpmDevice string // "" looks for it
	tpmHandle uint32 // of the attestation key, 0 for the usual one
}

// drivers is the order of detection. A forged report of Azure's would bring its
// own register for the initdata, were it looked for before the hardware.
func (h host) drivers() []Driver {
	return []Driver{
		h.tdx(),
		h.snp(),
		h.cca(),
		h.se(),
		h.azTDX(),
		h.azSNP(),
		h.tpm(),

		h.csv(),
		h.sevES(),
		h.sev(),
		h.sgx(),
	}
}

// opens reports whether the device below root is there, which a node alone does
// not show: without its driver it fails to open. One that is busy or that may
// not be opened counts as there, so that no platform is overlooked.
func (h host) opens(device string) bool {
	f, err := os.OpenFile(filepath.Join(h.root, device), os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV)
}

// exists reports whether any of the paths below root is there. A path that
// cannot be examined counts as there: a platform is never overlooked because
// of a broken file system.
func (h host) exists(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Lstat(filepath.Join(h.root, p)); err == nil || !os.IsNotExist(err) {
			return true
		}
	}
	return false
}

// says reports whether the file below root holds the word.
func (h host) says(path, word string) bool {
	f, err := os.Open(filepath.Join(h.root, path))
	if err != nil {
		return false
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 64))
	return strings.TrimSpace(string(b)) == word
}

// reporter reports whether the kernel's report interface is served by name.
func (h host) reporter(name string) bool {
	got, err := tsm.Provider(h.reports)
	return err == nil && got == name
}
