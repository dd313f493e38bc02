package main

import "testing"

// TestVMStartRefuses stops short of a machine; those are started in the tests
// of the guest.
func TestVMStartRefuses(t *testing.T) {
	ctl(t, nil, "vm", "start").want(t, 2, "", "--kernel and --initrd are needed")
	ctl(t, nil, "vm", "start", "--kernel", "k", "--initrd", "i", "--share", "x").want(t, 2, "", "must be TAG=DIR")
	ctl(t, nil, "vm", "start", "--kernel", "k", "--initrd", "i", "--console", "/nowhere/c").want(t, 4, "", "/nowhere/c")
}
