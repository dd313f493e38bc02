package device

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// CCWDisk matches the virtio disk of an s390x channel device.
type CCWDisk struct{ ccwID }

// CCWNet matches the network interface of a channel device.
type CCWNet struct{ ccwID }

// ccwID is the number of a channel device.
type ccwID struct {
	set    uint8 // subchannel set
	number uint16
}

// ParseCCW reads "0.S.NNNN": the channel subsystem, which is 0 in a guest, the
// subchannel set 0 to 3, and the device number in hex, where leading zeroes may
// be missing.
func ParseCCW(s string) (CCWDisk, error) {
	id, err := parseCCW(s)
	return CCWDisk{id}, err
}

func parseCCW(s string) (ccwID, error) {
	parts := strings.Split(s, ".")
	if len(parts) == 3 && parts[0] == "0" && len(parts[1]) == 1 && parts[1][0] >= '0' && parts[1][0] <= '3' &&
		len(parts[2]) > 0 && len(parts[2]) <= 4 && !strings.ContainsAny(parts[2], "+-_") {
		if n, err := strconv.ParseUint(parts[2], 16, 16); err == nil {
			return ccwID{parts[1][0] - '0', uint16(n)}, nil
		}
	}
	return ccwID{}, fmt.Errorf("CCW device %.80q is not 0.SET.NUMBER, up to 0.3.ffff: %w", s, errdefs.ErrInvalidArgument)
}

// ParseNet reads where the host plugged a network card: a PCI path, or on s390x
// a channel device.
func ParseNet(s string) (Matcher, error) {
	if strings.Count(s, ".") == 2 && !strings.Contains(s, "/") {
		id, err := parseCCW(s)
		return matcher(CCWNet{id}, err)
	}
	p, err := ParsePCIPath(s)
	return matcher(Net{p}, err)
}

// Match implements Matcher.
func (c CCWDisk) Match(e Event) (string, bool) { return e.DevName, c.below(e, "block") }

// Match implements Matcher.
func (c CCWNet) Match(e Event) (string, bool) { return e.DevName, c.below(e, "net") }

// below tells whether the event is about a virtio function of the device. The
// path is /devices/css0/SUBCHANNEL/DEVICE/virtioN/CLASS/NAME: the subchannel is
// named alike but has a number of its own.
func (c ccwID) below(e Event, class string) bool {
	parts := strings.Split(strings.TrimPrefix(e.DevPath, "/devices/"), "/")
	return e.Subsystem == class && len(parts) == 6 && parts[0] == "css0" && parts[2] == c.id() && isVirtio(parts[3]) && parts[4] == class
}

func (c ccwID) id() string { return fmt.Sprintf("0.%x.%04x", c.set, c.number) }

func (c CCWDisk) String() string { return "virtio disk of CCW device " + c.id() }

func (c CCWNet) String() string { return "network interface of CCW device " + c.id() }
