package device

import (
	"fmt"
	"path"
	"strconv"

	"github.com/containerd/errdefs"
)

// Partition matches a partition of a disk that was found before.
type Partition struct {
	disk string // name below /dev
	name string
}

// maxPartition bounds partition numbers: what a GPT holds as tools make it.
const maxPartition = 128

// NewPartition returns the Matcher for a partition of the disk whose node Wait
// returned.
func NewPartition(node string, number int) (Partition, error) {
	if number < 1 || number > maxPartition {
		return Partition{}, fmt.Errorf("partition %d is not 1 to %d: %w", number, maxPartition, errdefs.ErrInvalidArgument)
	}
	disk := path.Base(node)
	name := disk
	// The kernel keeps the number apart from a name that ends in one.
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		name += "p"
	}
	return Partition{disk, name + strconv.Itoa(number)}, nil
}

// Match implements Matcher.
func (p Partition) Match(e Event) (string, bool) {
	ok := e.Subsystem == "block" && e.DevName == p.name &&
		path.Base(e.DevPath) == p.name && path.Base(path.Dir(e.DevPath)) == p.disk
	return e.DevName, ok
}

func (p Partition) String() string { return "partition " + p.name }
