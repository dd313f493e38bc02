package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// subsystems tells which devices may match, so that an error does not list
// others. A Matcher that says nothing is about disks or network devices.
func subsystems(m Matcher) []string {
	if s, ok := m.(interface{ subsystem() string }); ok {
		return []string{s.subsystem()}
	}
	return []string{"block", "net"}
}

// place is the directory in sysfs that lists the devices of a subsystem, and
// where below /dev their nodes are.
func place(subsystem string) (dir, node string) {
	switch subsystem {
	case "pci", "ap":
		return "bus/" + subsystem + "/devices", ""
	case "vfio":
		return "class/vfio", "vfio/"
	}
	return "class/" + subsystem, ""
}

// scan lists the devices of some subsystems that sysfs shows now. A subsystem
// that does not exist holds no devices.
func (f *Finder) scan(subsystems []string) ([]Event, error) {
	var out []Event
	for _, s := range subsystems {
		found, err := f.scanOne(s)
		if err != nil {
			return nil, fmt.Errorf("scan sysfs: %w", err)
		}
		out = append(out, found...)
	}
	return out, nil
}

func (f *Finder) scanOne(subsystem string) ([]Event, error) {
	rel, node := place(subsystem)
	dir := f.sys(rel)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []Event
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // unplugged meanwhile, or a control file such as bonding_masters
		}
		devPath, ok := strings.CutPrefix(filepath.Join("/", rel, link), "/devices/")
		if !ok {
			continue
		}
		out = append(out, Event{subsystem, "/devices/" + devPath, node + plainName(entry.Name())})
	}
	return out, err
}

// sys joins a path below sysfs.
func (f *Finder) sys(elem ...string) string {
	return filepath.Join(or(f.Sys, "/sys"), filepath.Join(elem...))
}

// plainName turns the kernel's way to write a slash in a sysfs name back.
func plainName(name string) string { return strings.ReplaceAll(name, "!", "/") }
