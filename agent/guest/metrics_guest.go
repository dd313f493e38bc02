package guest

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxProcFile bounds what is read of one file in /proc, maxLabelled the lines
// that become samples of their own.
const (
	maxProcFile = 1 << 20
	maxLabelled = 256
)

// guestMetrics adds the families about the virtual machine.
func (m Machine) guestMetrics(e *Exposition) {
	m.load(e)
	m.cpuTime(e)
	e.Gauge("kata_guest_vm_stat", "Guest virtual memory statistics.")
	for _, l := range m.lines("vmstat") {
		if f := strings.Fields(l); len(f) == 2 {
			e.Sample(numbers(f)[1], "item", f[0])
		}
	}
	e.Gauge("kata_guest_netdev_stat", "Guest net devices statistics.")
	for _, l := range head(m.lines("net/dev"), maxLabelled) {
		if name, rest, ok := strings.Cut(l, ":"); ok {
			items(e, netdevItems(), strings.Fields(rest), "interface", strings.TrimSpace(name))
		}
	}
	e.Gauge("kata_guest_diskstat", "Disks statistics in system.")
	for _, l := range head(m.lines("diskstats"), maxLabelled) {
		if f := strings.Fields(l); len(f) > 3 {
			items(e, diskItems(), f[3:], "disk", f[2])
		}
	}
	m.memInfo(e)
}

func (m Machine) load(e *Exposition) {
	b, _ := os.ReadFile(filepath.Join(m.Proc, "loadavg"))
	f := strings.Fields(strings.Replace(string(b), "/", " ", 1))
	if len(f) < 5 {
		return
	}
	e.Gauge("kata_guest_load", "Guest system load.")
	items(e, []string{"load1", "load5", "load15"}, f)
	e.Gauge("kata_guest_tasks", "Guest system load.")
	items(e, []string{"cur", "max"}, f[3:])
}

func (m Machine) cpuTime(e *Exposition) {
	e.Gauge("kata_guest_cpu_time", "Guest CPU statistics.")
	for _, l := range head(m.lines("stat"), maxLabelled) {
		f := strings.Fields(l)
		if len(f) < 2 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		cpu := strings.TrimPrefix(f[0], "cpu")
		if cpu == "" {
			cpu = "total"
		}
		items(e, cpuItems(), f[1:], "cpu", cpu)
	}
}

// memInfo speaks of bytes; the kernel counts KiB where it names the unit.
func (m Machine) memInfo(e *Exposition) {
	names := memItems()
	e.Gauge("kata_guest_meminfo", "Statistics about memory usage in the system.")
	for _, l := range m.lines("meminfo") {
		key, value, ok := keyValue(l)
		item := names[key]
		if !ok || item == "" {
			continue
		}
		if strings.HasSuffix(l, " kB") {
			value *= 1024
		}
		e.Sample(value, "item", item)
	}
}

// items adds a sample per named column; labels come before the item.
func items(e *Exposition, names, columns []string, labels ...string) {
	values := numbers(columns)
	for i, name := range names {
		if i < len(values) {
			e.Sample(values[i], append(labels[:len(labels):len(labels)], "item", name)...)
		}
	}
}

// lines returns the lines of a file below /proc, none when it cannot be read.
func (m Machine) lines(path string) []string {
	f, err := os.Open(filepath.Join(m.Proc, path))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func head(lines []string, n int) []string {
	return lines[:min(n, len(lines))]
}
