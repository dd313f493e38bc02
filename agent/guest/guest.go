// Package guest reads facts of the virtual machine and turns its knobs, as the
// host asks: processors, memory and swap that were plugged in, random numbers,
// volumes, files that the host sends because it shares no file system, metrics,
// the termination log. One file holds one of them; none keeps state beyond what
// it says.
//
// Values come from the host and are checked here. Paths that it names are
// opened below a fixed directory, without following any symlink.
package guest

import (
	"fmt"
	"os"
	"strings"

	"github.com/coffer-cc/coffer/agent/ocispec"
)

// Machine is where the kernel shows itself.
type Machine struct {
	Proc string // "/proc"
	Sys  string // "/sys"
	Dev  string // "/dev"
}

// New returns the machine this program runs on.
func New() Machine {
	return Machine{Proc: "/proc", Sys: "/sys", Dev: "/dev"}
}

// SharedDir is where the host's files appear: shared by virtio-fs or sent by
// CopyFile.
const SharedDir = ocispec.SharedDir

// readWord returns a small file without the white space around its content.
func readWord(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// writeKnob writes a value to a file that the kernel made. It never creates one.
func writeKnob(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open knob: %w", err)
	}
	if _, err := f.WriteString(value); err != nil {
		f.Close()
		return fmt.Errorf("write knob: %w", err)
	}
	return f.Close()
}
