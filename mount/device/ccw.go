package device

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// CCWDisk matches the virtio disk of an s390x channel device.
type CCWDisk struct {
	set    uint8 // subchannel set
	number uint16
}

// ParseCCW reads "0.S.NNNN": the channel subsystem, which is 0 in a guest, the
// subchannel set 0 to 3, and the device number in hex, where leading zeroes may
// be missing.
func ParseCCW(s string) (CCWDisk, error) {
	parts := strings.Split(s, ".")
	if len(parts) == 3 && parts[0] == "0" && len(parts[1]) == 1 && parts[1][0] >= '0' && parts[1][0] <= '3' &&
		len(parts[2]) > 0 && len(parts[2]) <= 4 && !strings.ContainsAny(parts[2], "+-_") {
		if n, err := strconv.ParseUint(parts[2], 16, 16); err == nil {
			return CCWDisk{parts[1][0] - '0', uint16(n)}, nil
		}
	}
	return CCWDisk{}, fmt.Errorf("CCW device %.80q is not 0.SET.NUMBER, up to 0.3.ffff: %w", s, errdefs.ErrInvalidArgument)
}

// Match implements Matcher. The path is
// /devices/css0/SUBCHANNEL/DEVICE/virtioN/block/NAME: the subchannel is named
// alike but has a number of its own.
func (c CCWDisk) Match(e Event) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(e.DevPath, "/devices/"), "/")
	ok := e.Subsystem == "block" && len(parts) == 6 && parts[0] == "css0" && parts[2] == c.id() && isVirtio(parts[3]) && parts[4] == "block"
	return e.DevName, ok
}

func (c CCWDisk) id() string { return fmt.Sprintf("0.%x.%04x", c.set, c.number) }

func (c CCWDisk) String() string { return "virtio disk of CCW device " + c.id() }
