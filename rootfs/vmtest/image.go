// Package vmtest boots guests with the agent of this source tree and talks to
// them as a runtime does. Its tests are about what only a machine can show:
// boot, vsock, cgroups, disks, the end of PID 1. It is imported by tests only.
package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/coffer-cc/coffer/rootfs/image"
)

// A bundle is a guest image with everything a machine needs on the host's side.
type bundle struct {
	store       *image.Store
	dir         string // of vmlinuz and initrd.img
	vsockDevice string // empty where the host's kernel has vhost-vsock
	options     image.Options
}

// prepare builds agent and image once per test process. What it leaves lies in
// .cache/vmtest, and the next run writes over it.
var prepare = sync.OnceValues(func() (*bundle, error) {
	ctx := context.Background()
	root, err := image.FindRoot()
	if err != nil {
		return nil, err
	}
	b := &bundle{dir: filepath.Join(root, ".cache", "vmtest")}
	b.store = &image.Store{Root: root, Progress: func(line string) { fmt.Fprintln(os.Stderr, "vmtest:", line) }}
	// The Makefile knows the build tags and the linker's flags.
	build := exec.CommandContext(ctx, "make", "--silent", "--directory="+root, "agent", "BIN="+b.dir)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build agent: %w: %s", err, out)
	}
	b.options = image.Options{
		Agent:  filepath.Join(b.dir, "coffer-agent"),
		Config: filepath.Join(root, "rootfs", "vmtest", "testdata", "agent.toml"),
		Policy: filepath.Join(root, "rootfs", "vmtest", "testdata", "allow-all.rego"),
		Out:    b.dir,
		// The host hands the image over in memory: unpacking is all there is to
		// save.
		Compression: "none",
		Spare:       append(image.DefaultSpare(), "dummy", "vfio-pci", "vfio_iommu_type1"),
	}
	if b.options.Pause, err = b.store.BuildPause(ctx); err != nil {
		return nil, err
	}
	if _, err = b.store.Build(ctx, b.options); err != nil {
		return nil, err
	}
	if _, err := os.Stat("/dev/vhost-vsock"); err != nil {
		// Without the program the transport falls back to loopback; the run
		// says so.
		if b.vsockDevice, err = b.store.VsockDevice(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "vmtest:", err)
		}
	}
	return b, nil
})
