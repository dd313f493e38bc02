package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// conditions passes the devices of each wanted module on to what it needs. A
// module without any, such as a file system, is needed always.
func conditions(wanted []string, needs, devices map[string][]string) map[string][]string {
	on, always := map[string][]string{}, map[string]bool{}
	var pass func(name string, patterns []string)
	pass = func(name string, patterns []string) {
		name = moduleName(name)
		always[name] = always[name] || len(patterns) == 0
		on[name] = append(on[name], patterns...)
		for _, n := range needs[name] {
			pass(n, patterns)
		}
	}
	for _, name := range wanted {
		pass(name, devices[moduleName(name)])
	}
	for name := range on {
		slices.Sort(on[name])
		on[name] = slices.Compact(on[name])
		if always[name] {
			on[name] = nil
		}
	}
	return on
}

// devicesOf are the words for a module's devices in the image's list.
func devicesOf(m module) []string {
	if len(m.on) == 0 {
		return nil
	}
	return append([]string{"on"}, m.on...)
}

// moduleInfo is what the kernel build writes into each module about it.
type moduleInfo struct {
	depends []string // the direct ones
	devices []string // aliases of devices on a bus
}

// buses are those whose devices tell a modalias.
var buses = []string{"virtio:", "pci:", "cpu:", "platform:", "acpi", "scsi:", "nd:"}

func modinfo(ko []byte) (moduleInfo, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return moduleInfo{}, fmt.Errorf("parse ELF: %w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return moduleInfo{}, fmt.Errorf("no .modinfo section: %w", errdefs.ErrInvalidArgument)
	}
	data, err := section.Data()
	if err != nil {
		return moduleInfo{}, fmt.Errorf("read .modinfo: %w", err)
	}
	var info moduleInfo
	for field := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		isDevice := func(bus string) bool { return strings.HasPrefix(value, bus) }
		switch {
		case key == "depends":
			info.depends = slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == "" })
		case key == "alias" && slices.ContainsFunc(buses, isDevice) && !strings.ContainsAny(value, " \t\n"):
			info.devices = append(info.devices, value)
		}
	}
	return info, nil
}
