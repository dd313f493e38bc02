// Package device finds guest devices that the host names by their place on a
// bus, and waits for those that are plugged in later.
//
// A device is looked up in sysfs first, since one that was there at boot never
// produces an event that we could see, and then in the kernel's events. Names
// such as vda are never guessed from the order in which devices appear.
package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Event says that a device exists. It comes from the kernel's uevent or from
// a scan of sysfs; both look the same to a Matcher.
type Event struct {
	Subsystem string // block, net, pci, vfio or ap
	DevPath   string // below /sys, begins with "/devices/"
	DevName   string // below /dev; what has no node is named by its interface or address
}

// A Matcher recognises the awaited device. Match is a pure function; String
// names the device for errors.
type Matcher interface {
	Match(Event) (devname string, ok bool)
	String() string
}

// A stirrer is a Matcher whose device may be there without the kernel knowing.
// stir makes it look.
type stirrer interface{ stir(sys string) error }

// Drivers loads what the kernel needs for a device.
type Drivers interface {
	// LoadPresent is for all devices that are there.
	LoadPresent(ctx context.Context) error
	// Plugged is for one that has just appeared, by its modalias.
	Plugged(ctx context.Context, modalias string)
}

// DefaultTimeout is how long Wait waits when neither the Finder nor the call
// sets a limit. It is the shims' own default for a device that they plug in.
const DefaultTimeout = 3 * time.Second

// A quarter of a call's time, but no more than this, is left for the answer that
// tells what was there instead of the device: the caller's clock began earlier.
const maxMargin = 3 * time.Second

// stirInterval is how often a stirrer is asked again.
const stirInterval = 250 * time.Millisecond

// Finder knows the devices of this guest. Set its fields before first use.
type Finder struct {
	Sys     string        // "/sys" when empty
	Dev     string        // "/dev" when empty
	Timeout time.Duration // for a device to appear; 0 leaves it to the deadline of the call
	// Memory is called by Run with the name of each memory block that appears,
	// for example "memory33"; nil for nobody. It must not wait for anything.
	Memory func(block string)

	Drivers Drivers // for devices that appear; nil where something else loads drivers

	mu      sync.Mutex // guards waiters
	waiters map[*waiter]struct{}
}

// waiter is one call of Wait.
type waiter struct {
	match Matcher
	found chan Event    // holds one
	lost  chan struct{} // holds one: events were dropped, look at sysfs again
}

// Wait returns the path of the matching device's node. For what has none it
// returns its name: the interface of a network device, the address of a PCI
// function, the number of an AP queue. It waits until shortly before ctx's
// deadline, or until the Finder's Timeout is over if that is earlier, and then
// answers ErrUnavailable, with what there is instead. Events are only seen
// while Run runs.
func (f *Finder) Wait(ctx context.Context, m Matcher) (path string, err error) {
	timeout := f.timeout(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	w := f.register(m) // before the scan, so that nothing falls in between
	defer f.unregister(w)
	for {
		seen, err := f.scan(subsystems(m))
		if err != nil {
			return "", fmt.Errorf("find %s: %w", m, err)
		}
		if e, ok := first(m, seen); ok && f.ready(e) {
			return f.node(e), nil
		}
		again, err := f.stir(m)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", m, err)
		}
		select {
		case e := <-w.found:
			return f.node(e), nil
		case <-w.lost:
		case <-again:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errTimeout) {
				return "", fmt.Errorf("wait for %s: %w", m, err)
			}
			return "", fmt.Errorf("wait for %s: nothing after %v, there is %s: %w", m, timeout, list(seen), errdefs.ErrUnavailable)
		}
	}
}

// timeout is how long a Wait with ctx may take.
func (f *Finder) timeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return cmp.Or(f.Timeout, DefaultTimeout)
	}
	left := time.Until(deadline)
	left -= min(left/4, maxMargin)
	if f.Timeout > 0 {
		left = min(left, f.Timeout)
	}
	return left
}

// stir makes the kernel look for the device of m, if it may have to. The
// channel tells when to do so again; it is nil for other devices.
func (f *Finder) stir(m Matcher) (again <-chan time.Time, err error) {
	s, ok := m.(stirrer)
	if !ok {
		return nil, nil
	}
	return time.After(stirInterval), s.stir(or(f.Sys, "/sys"))
}

var errTimeout = errors.New("device timeout")

func (f *Finder) register(m Matcher) *waiter {
	w := &waiter{match: m, found: make(chan Event, 1), lost: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiters == nil {
		f.waiters = make(map[*waiter]struct{})
	}
	f.waiters[w] = struct{}{}
	return w
}

func (f *Finder) unregister(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, w)
}

// deliver hands an event to the calls that wait for it.
func (f *Finder) deliver(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.waiters {
		if name, ok := w.match.Match(e); ok {
			e.DevName = name
			select {
			case w.found <- e:
			default: // it has one already
			}
		}
	}
}

// rescan makes every waiting call look at sysfs again.
func (f *Finder) rescan() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.waiters {
		select {
		case w.lost <- struct{}{}:
		default:
		}
	}
}

func (f *Finder) node(e Event) string {
	switch e.Subsystem {
	case "net", "pci", "ap":
		return e.DevName
	}
	return filepath.Join(or(f.Dev, "/dev"), e.DevName)
}

// ready reports whether a device that sysfs shows can be used. The kernel makes
// the entry in sysfs first, then the node, and sends its event at the end: so
// the event of one that is not ready is still to come.
func (f *Finder) ready(e Event) bool {
	if _, err := os.Stat(f.sys(e.DevPath, "dev")); err != nil {
		return true // it has no number, and so no node
	}
	_, err := os.Lstat(f.node(e))
	return err == nil
}

func first(m Matcher, events []Event) (Event, bool) {
	for _, e := range events {
		if name, ok := m.Match(e); ok {
			e.DevName = name
			return e, true
		}
	}
	return Event{}, false
}

// list names devices for an error, as many as a reader can use.
func list(events []Event) string {
	const most = 12
	var names []string
	for _, e := range events {
		if strings.HasPrefix(e.DevPath, "/devices/virtual/") {
			continue // loop devices and the like only hide the rest
		}
		if len(names) == most {
			names = append(names, "…")
			break
		}
		names = append(names, e.DevName+" at "+strings.TrimPrefix(e.DevPath, "/devices/"))
	}
	if len(names) == 0 {
		return "no device on any bus"
	}
	return strings.Join(names, ", ")
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
