package vmtest

import (
	"strings"
	"testing"
)

// TestDiskRoot boots from a disk that nobody can write to, with the agent as the
// first program and no initrd, and runs a container there.
func TestDiskRoot(t *testing.T) {
	ownMachine(t)
	c := Variant{Disk: true}.Build(t)
	shared := sharedConfig(t)
	c.Shares = shared.Shares
	c.Words = append(shared.Words, "init=/init")
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	if got := g.run(t, "c1", "cat", "/proc/cmdline"); !strings.Contains(got, "root=/dev/nvme0n1p1") {
		t.Errorf("booted with %s", got)
	}
	// The container's own root is pivoted into, from a root that is no initramfs.
	mounts := g.run(t, "c2", "cat", "/proc/mounts")
	if strings.Contains(mounts, "nvme0n1p1 / ") || !strings.Contains(mounts, " / virtiofs ") {
		t.Errorf("mounts of a container: %s", mounts)
	}
}
