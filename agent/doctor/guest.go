package doctor

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Guest is what is looked at. Root is "/" but in tests; the other fields come
// from the settings.
type Guest struct {
	Root    string
	WorkDir string    // where layers of images are kept
	Built   time.Time // no clock of a guest is before it
	VPorts  bool      // the agent listens on vsock

	// Release and Statfs ask the running kernel; nil does for the real ones.
	Release func() (string, error)
	Statfs  func(path string) (Space, error)
	// Random reports whether the kernel's random numbers are ready.
	Random func() bool
	// VsockCID is the guest's own address.
	VsockCID func() (uint32, error)
	Now      func() time.Time
}

// Here is the guest that this program runs in.
func Here(workDir string, built time.Time, vports bool) Guest {
	return Guest{
		Root: "/", WorkDir: workDir, Built: built, VPorts: vports,
		Release: release, Statfs: statfs, Random: randomReady, VsockCID: vsockCID, Now: time.Now,
	}
}

// Checks are those of the guest itself.
func (g Guest) Checks() []Check {
	plain := func(look func() Finding) func(context.Context) Finding {
		return func(context.Context) Finding { return look() }
	}
	return []Check{
		{"kernel", plain(g.kernel)},
		{"clock", plain(g.clock)},
		{"entropy", plain(g.entropy)},
		{"cgroups", plain(g.cgroups)},
		{"memory", plain(g.memory)},
		{"space of /run", plain(func() Finding { return g.space("/run", minRun) })},
		{"space for images", plain(func() Finding { return g.space(g.WorkDir, minImages) })},
		{"vsock", plain(g.vsock)},
	}
}

func (g Guest) path(p string) string { return filepath.Join(g.Root, p) }

func (g Guest) exists(p string) bool {
	_, err := os.Stat(g.path(p))
	return err == nil
}

// maxFile bounds what is read of the kernel's small files.
const maxFile = 64 << 10

// read returns a small file without the white space around it.
func (g Guest) read(p string) (string, error) {
	f, err := os.Open(g.path(p))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return strings.TrimSpace(string(b)), err
}
