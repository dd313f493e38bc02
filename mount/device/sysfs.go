package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// scan lists the block and network devices that sysfs shows now. A class that
// does not exist holds no devices.
func (f *Finder) scan() ([]Event, error) {
	sys := or(f.Sys, "/sys")
	var out []Event
	for _, class := range []string{"block", "net"} {
		dir := filepath.Join(sys, "class", class)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("scan sysfs: %w", err)
		}
		for _, entry := range entries {
			link, err := os.Readlink(filepath.Join(dir, entry.Name()))
			if err != nil {
				continue // unplugged meanwhile, or a control file such as bonding_masters
			}
			devPath, ok := strings.CutPrefix(filepath.Join("/class", class, link), "/devices/")
			if !ok {
				continue
			}
			out = append(out, Event{class, "/devices/" + devPath, plainName(entry.Name())})
		}
	}
	return out, nil
}

// plainName turns the kernel's way to write a slash in a sysfs name back.
func plainName(name string) string { return strings.ReplaceAll(name, "!", "/") }
