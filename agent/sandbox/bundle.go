package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/storage"
)

const (
	configFile = "config.json"
	rootfsDir  = "rootfs"
)

// makeBundle creates the directory of a container.
func (s *Sandbox) makeBundle(id string) error {
	if err := os.MkdirAll(s.deps.Run, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	place, err := mount.At(s.deps.Run, s.bundle(id))
	if err != nil {
		return err
	}
	dir, err := place.MakeDir(0o755)
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	return dir.Close()
}

// removeBundle removes what the bundle holds, but nothing that is mounted in it.
func (s *Sandbox) removeBundle(id string) error {
	place, err := mount.At(s.deps.Run, s.bundle(id))
	if err != nil {
		return err
	}
	if err := place.RemoveAll(); err != nil {
		return fmt.Errorf("remove bundle: %w", err)
	}
	return nil
}

// mountRoot makes the root file system of a container appear in its bundle and
// returns the path. Where a storage of the same request was mounted there, as
// with an image pulled in the guest, it is that. Otherwise the directory that
// the spec names is bound; it must lie below the run directory and be reached
// without a symlink, or the host could give any directory of the guest to a
// container. The result tells whether there is a bind to undo.
func (s *Sandbox) mountRoot(id string, root *specs.Root, volumes []storage.Volume) (path string, bound bool, err error) {
	path = filepath.Join(s.bundle(id), rootfsDir)
	if slices.ContainsFunc(volumes, func(v storage.Volume) bool { return v.Path() == path }) {
		return path, false, nil
	}
	place, err := mount.At(s.deps.Run, path)
	if err != nil {
		return "", false, err
	}
	source, err := s.openRoot(root.Path, place)
	if err != nil {
		return "", false, fmt.Errorf("root.path: %w", err)
	}
	defer source.Close()
	dir, err := place.MakeDir(0o755)
	if err != nil {
		return "", false, fmt.Errorf("make mount point of root: %w", err)
	}
	dir.Close()
	// A mount that is there already belongs to nobody in this request.
	on, err := place.Mounted()
	if err == nil && on {
		err = fmt.Errorf("something is mounted on %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return "", false, err
	}
	bind := mount.Request{Source: mount.FDPath(source), Options: mount.Options{Flags: unix.MS_BIND}}
	if err := place.Mount(bind); err != nil {
		return "", false, fmt.Errorf("bind root: %w", err)
	}
	return path, true, nil
}

// openRoot opens the directory that the spec names as root.
func (s *Sandbox) openRoot(path string, bundle mount.Place) (*os.File, error) {
	place, err := mount.At(s.deps.Run, path)
	if err != nil {
		return nil, err
	}
	if part, _, _ := strings.Cut(place.Rel(), "/"); slices.Contains(s.deps.Reserved, part) {
		return nil, fmt.Errorf("%s is reserved: %w", path, errdefs.ErrPermissionDenied)
	}
	if place == bundle {
		return nil, fmt.Errorf("no storage was mounted on %s: %w", path, errdefs.ErrInvalidArgument)
	}
	f, err := place.Open()
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// unmountRoot undoes the bind of mountRoot.
func (s *Sandbox) unmountRoot(id string) error {
	place, err := mount.At(s.deps.Run, filepath.Join(s.bundle(id), rootfsDir))
	if err != nil {
		return err
	}
	// Killed processes may take a moment to let go of their files.
	if err := place.UnmountLazy(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount root: %w", err)
	}
	return nil
}

// writeConfig leaves the spec in the bundle, as other OCI runtimes do, for
// whoever looks into a guest that allows looking. It may hold secrets of the
// workload, so it must not land in a file system that the host has mounted there.
func (s *Sandbox) writeConfig(id string, spec *specs.Spec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	place, err := mount.At(s.deps.Run, filepath.Join(s.bundle(id), configFile))
	if err != nil {
		return err
	}
	place = place.OnRootFS()
	if err := place.Remove(); err != nil {
		return fmt.Errorf("replace spec: %w", err)
	}
	f, err := place.MakeFile()
	if err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	defer f.Close()
	if err := os.WriteFile(mount.FDPath(f), text, 0o600); err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	return nil
}

// removeStale removes bundles that an earlier agent of this guest left behind.
// A bundle is known by its spec; everything else below the run directory is
// somebody else's: sockets, images, shared directories.
func (s *Sandbox) removeStale() error {
	stale := func(name string) bool {
		st, err := os.Lstat(filepath.Join(s.bundle(name), configFile))
		return err == nil && st.Mode().IsRegular() && checkID(name) == nil && !s.known(name)
	}
	if err := mount.RemoveStale(s.deps.Run, stale); err != nil {
		return fmt.Errorf("remove stale bundles: %w", err)
	}
	return nil
}
