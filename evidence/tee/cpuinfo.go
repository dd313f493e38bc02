package tee

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxCPUInfo bounds what is read of /proc/cpuinfo; the first processor's flags
// stand within its first kilobytes.
const maxCPUInfo = 64 << 10

// processorFlag reports whether the kernel found the flag on the first
// processor.
func (h host) processorFlag(name string) bool {
	f, err := os.Open(filepath.Join(h.root, "proc/cpuinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxCPUInfo))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "flags" {
			return slices.Contains(strings.Fields(value), name)
		}
	}
	return false
}
