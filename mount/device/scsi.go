package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// SCSIDisk matches the disk with an address on channel 0 of a virtio-scsi
// controller.
type SCSIDisk struct{ target, lun uint16 }

// maxTarget and maxLUN are what shims count to (index/256 and index%256), with
// the limits of virtio-scsi for others.
const (
	maxTarget = 255
	maxLUN    = 16383
)

// ParseSCSIAddress reads "ID:LUN", both decimal.
func ParseSCSIAddress(s string) (SCSIDisk, error) {
	id, lun, ok := strings.Cut(s, ":")
	target, okTarget := decimal(id, maxTarget)
	unit, okLUN := decimal(lun, maxLUN)
	if !ok || !okTarget || !okLUN {
		return SCSIDisk{}, fmt.Errorf("SCSI address %.80q is not ID:LUN, up to %d:%d: %w", s, maxTarget, maxLUN, errdefs.ErrInvalidArgument)
	}
	return SCSIDisk{target, unit}, nil
}

// decimal reads a number in its shortest form, and nothing else.
func decimal(s string, limit uint16) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && uint16(n) <= limit && strconv.FormatUint(n, 10) == s
}

// Match implements Matcher. The path ends in
// virtioN/hostH/targetH:0:ID/H:0:ID:LUN/block/NAME, and a partition lies deeper.
func (d SCSIDisk) Match(e Event) (string, bool) {
	parts := strings.Split(e.DevPath, "/")
	n := len(parts)
	if e.Subsystem != "block" || n < 6 || parts[n-2] != "block" || !isVirtio(parts[n-6]) {
		return "", false
	}
	host, ok := strings.CutPrefix(parts[n-5], "host")
	return e.DevName, ok && parts[n-3] == fmt.Sprintf("%s:0:%d:%d", host, d.target, d.lun)
}

func (d SCSIDisk) String() string { return fmt.Sprintf("disk at SCSI address %d:%d", d.target, d.lun) }

// stir makes the kernel look at the address on every controller: not all
// hypervisors tell the guest of a new disk.
func (d SCSIDisk) stir(sys string) error {
	dir := filepath.Join(sys, "class/scsi_host")
	hosts, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no controller yet: it may come with the disk
	}
	if err != nil {
		return fmt.Errorf("scan SCSI bus: %w", err)
	}
	for _, host := range hosts {
		f, err := os.OpenFile(filepath.Join(dir, host.Name(), "scan"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("scan SCSI bus: %w", err)
		}
		_, err = fmt.Fprintf(f, "0 %d %d", d.target, d.lun)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("scan SCSI bus: %w", err)
		}
	}
	return nil
}
