package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
)

// PCIFunction matches the function at a PCI path itself, whatever its driver.
type PCIFunction struct{ Path PCIPath }

// Match implements Matcher.
func (p PCIFunction) Match(e Event) (string, bool) {
	rest, ok := p.Path.below(e.DevPath)
	return e.DevName, ok && e.Subsystem == "pci" && len(rest) == 0
}

func (p PCIFunction) String() string    { return "PCI function at path " + p.Path.String() }
func (p PCIFunction) subsystem() string { return "pci" }

// VFIOGroup matches the node of an IOMMU group. It appears when the first
// function of the group has the driver.
type VFIOGroup int

// Match implements Matcher.
func (g VFIOGroup) Match(e Event) (string, bool) {
	return e.DevName, e.Subsystem == "vfio" && e.DevPath == "/devices/virtual/vfio/"+strconv.Itoa(int(g))
}

func (g VFIOGroup) String() string    { return "VFIO group " + strconv.Itoa(int(g)) }
func (g VFIOGroup) subsystem() string { return "vfio" }

const vfioDriver = "vfio-pci"

// BindVFIO takes a PCI function, by its address as Wait returned it, from its
// driver and gives it to vfio-pci, which makes it usable from user space. It
// returns the function's IOMMU group. The function stays with vfio-pci for good,
// as the host wants it for the life of the guest. A function that is there
// already is left alone.
//
// The steps are those of Documentation/ABI/testing/sysfs-bus-pci: driver_override
// says whom the next probe may ask.
func (f *Finder) BindVFIO(address string) (VFIOGroup, error) {
	dir := f.sys("bus/pci/devices", address)
	group, err := iommuGroup(dir)
	if err != nil {
		return 0, fmt.Errorf("bind %s to %s: %w", address, vfioDriver, err)
	}
	if err := f.rebind(dir, address); err != nil {
		return 0, fmt.Errorf("bind %s to %s: %w", address, vfioDriver, err)
	}
	return group, nil
}

// iommuGroup comes first: without one, vfio-pci would refuse the function after
// its driver had lost it.
func iommuGroup(dir string) (VFIOGroup, error) {
	link, err := os.Readlink(filepath.Join(dir, "iommu_group"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("it is in no IOMMU group: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(filepath.Base(link), 10, 31)
	return VFIOGroup(n), err
}

func (f *Finder) rebind(dir, address string) error {
	if err := write(filepath.Join(dir, "driver_override"), vfioDriver); err != nil {
		return err
	}
	now, err := driverOf(dir)
	if err != nil || now == vfioDriver {
		return err
	}
	if now != "" {
		if err := write(filepath.Join(dir, "driver/unbind"), address); err != nil {
			return err
		}
	}
	if err := write(f.sys("bus/pci/drivers_probe"), address); err != nil {
		return err
	}
	now, err = driverOf(dir)
	if err == nil && now != vfioDriver {
		err = fmt.Errorf("the driver did not take it; is its module loaded: %w", errdefs.ErrFailedPrecondition)
	}
	return err
}

// driverOf returns the name of a function's driver, or "".
func driverOf(dir string) (string, error) {
	link, err := os.Readlink(filepath.Join(dir, "driver"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return filepath.Base(link), err
}

// write writes to a file of sysfs, which is there and is not to be made.
func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
