package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// APQueue matches a queue of a crypto adapter of IBM Z, by card and domain.
type APQueue struct {
	card   uint8
	domain uint16
}

// ParseAPQueue reads "05.001f": card and domain in hex, as the kernel writes
// the queue.
func ParseAPQueue(s string) (APQueue, error) {
	card, domain, ok := strings.Cut(s, ".")
	c, err := strconv.ParseUint(card, 16, 8)
	d, err2 := strconv.ParseUint(domain, 16, 16)
	if q := (APQueue{uint8(c), uint16(d)}); ok && err == nil && err2 == nil && q.String() == strings.ToLower(s) {
		return q, nil
	}
	return APQueue{}, fmt.Errorf("AP queue %.80q is not of the form 0a.003f: %w", s, errdefs.ErrInvalidArgument)
}

// Match implements Matcher.
func (q APQueue) Match(e Event) (string, bool) {
	return e.DevName, e.Subsystem == "ap" && e.DevPath == fmt.Sprintf("/devices/ap/card%02x/%s", q.card, q)
}

func (q APQueue) String() string    { return fmt.Sprintf("%02x.%04x", q.card, q.domain) }
func (q APQueue) subsystem() string { return "ap" }

// RescanAP makes the kernel look for new queues, which it does by itself only
// now and then.
func (f *Finder) RescanAP() error {
	if err := write(f.sys("bus/ap/scans"), "1"); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this guest has no AP bus: %w", errdefs.ErrFailedPrecondition)
	} else if err != nil {
		return fmt.Errorf("rescan AP bus: %w", err)
	}
	return nil
}

// SecureExecution reports whether this is a confidential guest of IBM Z, where
// queues need to be bound with a secret before they work.
func (f *Finder) SecureExecution() bool {
	text, err := os.ReadFile(f.sys("firmware/uv/prot_virt_guest"))
	return err == nil && strings.TrimSpace(string(text)) == "1"
}
