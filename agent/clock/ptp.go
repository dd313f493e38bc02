package clock

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// kvmName is what the driver ptp_kvm calls its clock.
const kvmName = "KVM virtual PTP"

// samples is how often a clock is read for one answer. The one with the least
// time around it counts, because what lies in between is error.
const samples = 5

// PTP is the host's clock as a device of this guest.
type PTP struct{ device *os.File }

// OpenKVM finds the clock of KVM among the devices below root. Without one it is
// errdefs.ErrNotFound.
func OpenKVM(root string) (*PTP, error) {
	names, err := filepath.Glob(filepath.Join(root, "sys/class/ptp/ptp*/clock_name"))
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		text, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(text)) != kvmName {
			continue
		}
		device := filepath.Join(root, "dev", filepath.Base(filepath.Dir(path)))
		f, err := os.OpenFile(device, os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("open the clock of KVM: %w", err)
		}
		return &PTP{f}, nil
	}
	return nil, fmt.Errorf("no clock of KVM: %w", errdefs.ErrNotFound)
}

// Name implements Source.
func (p *PTP) Name() string { return "ptp_kvm" }

// Close closes the device.
func (p *PTP) Close() error { return p.device.Close() }

// Offset implements Source. A POSIX clock is made of the device's descriptor, as
// Documentation/driver-api/ptp.rst has it.
func (p *PTP) Offset() (time.Duration, error) {
	return nearest(func() (before, there, after time.Time, err error) {
		var ts unix.Timespec
		before = time.Now()
		err = unix.ClockGettime(unix.FdToClockID(int(p.device.Fd())), &ts)
		after = time.Now()
		return before, time.Unix(ts.Unix()), after, err
	})
}

// nearest reads a clock between two looks at ours, and takes the offset to their
// middle where they were closest.
func nearest(read func() (before, there, after time.Time, err error)) (time.Duration, error) {
	best := time.Duration(math.MaxInt64)
	var offset time.Duration
	for range samples {
		before, there, after, err := read()
		if err != nil {
			return 0, err
		}
		if width := after.Sub(before); width < best {
			best, offset = width, there.Sub(before.Add(width/2))
		}
	}
	return offset, nil
}
