// Package device finds guest devices that the host names by their place on a
// bus, and waits for those that are plugged in later.
package device

import "context"

// Event says that a device exists. It comes from the kernel's uevent or from
// a scan of sysfs; both look the same to a Matcher.
type Event struct {
	Subsystem string // block, net, ...
	DevPath   string // below /sys, begins with "/devices/"
	DevName   string // below /dev; for a network device its interface name
}

// A Matcher recognises the awaited device. Match is a pure function; String
// names the device for errors.
type Matcher interface {
	Match(Event) (devname string, ok bool)
	String() string
}

// Finder knows the devices of this guest.
type Finder struct {
	Sys string // "/sys"
	Dev string // "/dev"
}

// Run listens for devices that appear, until ctx ends.
func (f *Finder) Run(ctx context.Context) error { return nil }

// Wait returns the path of the matching device's node.
func (f *Finder) Wait(ctx context.Context, m Matcher) (path string, err error) { return "", nil }
