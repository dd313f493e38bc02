package main

import "testing"

// TestVMStartRefuses stops short of a machine; those are started in the tests
// of the guest.
func TestVMStartRefuses(t *testing.T) {
	ctl(t, nil, "vm", "start", "--transport", "loopback").want(t, 1, "", "can reach no guest")
	ctl(t, nil, "vm", "start", "--transport", "vhost-vsock", "--share", "x").want(t, 2, "", "must be TAG=DIR")
	ctl(t, nil, "vm", "start", "--transport", "vhost-vsock", "--console", "/nowhere/c").want(t, 4, "", "/nowhere/c")
}
