package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestVisit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	d := Deps{Root: t.TempDir()}
	m := NewManager(d, Handlers(d))
	place := filepath.Join(d.Root, "volume")
	s := Storage{Driver: "ephemeral", Source: "tmpfs", FSType: "tmpfs", MountPoint: place, Options: []string{"size=1m"}}
	if _, err := m.Add(t.Context(), "pod", []Storage{s}); err != nil {
		t.Fatal(err)
	}
	defer m.ReleaseAll(t.Context())
	if err := os.Mkdir(filepath.Join(place, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(d.Root, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", other, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(other, 0)

	var blocks uint64
	err := m.Visit(t.Context(), place, func(root *os.File) error {
		var st unix.Statfs_t
		err := unix.Fstatfs(int(root.Fd()), &st)
		blocks = st.Blocks * uint64(st.Bsize)
		return err
	})
	if err != nil || blocks != 1<<20 {
		t.Errorf("a volume of %d bytes, %v", blocks, err)
	}
	mine := errors.New("mine")
	if err := m.Visit(t.Context(), place, func(*os.File) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("error of the visitor: %v", err)
	}
	for name, tc := range map[string]struct {
		path string
		is   func(error) bool
	}{
		"outside":               {"/etc", errdefs.IsInvalidArgument},
		"dots":                  {place + "/../../..", errdefs.IsInvalidArgument},
		"inside a volume":       {place + "/inside", errdefs.IsNotFound},
		"somebody's mount":      {other, errdefs.IsNotFound},
		"no mount":              {filepath.Join(d.Root, "nothing"), errdefs.IsNotFound},
		"what is not the pod's": {filepath.Join(d.Root, "image", "a"), errdefs.IsPermissionDenied},
	} {
		err := m.Visit(t.Context(), tc.path, func(*os.File) error {
			t.Errorf("%s: visited", name)
			return nil
		})
		if !tc.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody else took the mount away: its directory is not the volume.
	if err := unix.Unmount(place, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Visit(t.Context(), place, func(*os.File) error { return nil }); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a mount that is gone: %v", err)
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", 0, ""); err != nil { // for the release
		t.Fatal(err)
	}
}
