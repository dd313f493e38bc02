package device

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Pmem matches the block device of persistent memory with a name.
type Pmem struct{ name string }

// ParsePmem reads "/dev/pmemN".
func ParsePmem(s string) (Pmem, error) {
	n, ok := strings.CutPrefix(s, "/dev/pmem")
	if _, number := decimal(n, 1<<16-1); !ok || !number {
		return Pmem{}, fmt.Errorf("persistent memory %.80q is not /dev/pmemN: %w", s, errdefs.ErrInvalidArgument)
	}
	return Pmem{"pmem" + n}, nil
}

// Match implements Matcher. The path is …/ndbusN/regionN/NAMESPACE/block/NAME,
// with an NVDIMM of ACPI or a virtio-pmem device before it.
func (p Pmem) Match(e Event) (string, bool) {
	parts := strings.Split(e.DevPath, "/")
	n := len(parts)
	ok := e.Subsystem == "block" && n > 5 && e.DevName == p.name && parts[n-1] == p.name && parts[n-2] == "block" &&
		numbered(parts[n-4], "region") && numbered(parts[n-5], "ndbus")
	return e.DevName, ok
}

func (p Pmem) String() string { return "persistent memory " + p.name }

// numbered reports whether name is the word and a number.
func numbered(name, word string) bool {
	n, ok := strings.CutPrefix(name, word)
	_, err := strconv.ParseUint(n, 10, 32)
	return ok && err == nil
}
