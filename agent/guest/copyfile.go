package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// partPrefix begins the names of files that are not complete yet. The host
// cannot name such a file.
const partPrefix = ".coffer-part-"

// CopyRequest is one piece of a file, or a whole directory or symlink. Mode is a
// full st_mode; of DirMode only the permission bits count.
type CopyRequest struct {
	Path    string
	Size    int64 // of the complete file
	Offset  int64 // of Data in it
	Mode    uint32
	DirMode uint32 // for parents that have to be made
	UID     int32
	GID     int32
	Data    []byte // content, or the target of a symlink
}

// Copier writes files that the host sends below one directory. A file appears
// under its name only when it is complete, and then all at once: readers see
// the old one or the new one. Until then its pieces gather under a name derived
// from the whole file name, so that siblings never share one.
//
// Symlinks are never followed: a path means the same thing to the policy that
// allowed it and to the kernel. They are created as they come, or, where
// Confined is set, only if nobody who follows them leaves Root.
type Copier struct {
	Root     string // SharedDir
	Confined bool   // for guests that do not trust their host

	mu sync.Mutex // one request at a time: two for the same file would mix their pieces
}

// Copy performs one request. Pieces come in order, the first at offset 0, which
// starts the file anew; a piece may be repeated. An existing directory keeps its
// content when a directory is asked for, and is replaced by anything else.
func (c *Copier) Copy(_ context.Context, r CopyRequest) error {
	place, err := r.check(c.Root)
	if err == nil && c.Confined && r.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = confine(place, string(r.Data))
	}
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	parent, err := c.openParent(r)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	defer parent.Close()
	t := copyTarget{r, place, parent, filepath.Base(place.String())}
	switch r.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = t.directory()
	case unix.S_IFLNK:
		err = t.symlink()
	default:
		err = t.piece()
	}
	if err != nil {
		return fmt.Errorf("copy %q: %w", place, err)
	}
	return nil
}

// check looks at the request without touching anything.
func (r CopyRequest) check(root string) (mount.Place, error) {
	bad := func(why string) (mount.Place, error) {
		return mount.Place{}, fmt.Errorf("%s: %w", why, errdefs.ErrInvalidArgument)
	}
	place, err := mount.At(root, r.Path)
	if err != nil {
		return place, err
	}
	kind := r.Mode & unix.S_IFMT
	switch {
	case strings.HasPrefix(filepath.Base(place.String()), partPrefix):
		return bad("path: the name is reserved")
	case r.UID < 0 || r.GID < 0:
		return bad("uid or gid is negative")
	case kind != unix.S_IFREG && kind != unix.S_IFDIR && kind != unix.S_IFLNK:
		return bad("file_mode: neither file, directory nor symlink")
	case kind == unix.S_IFLNK && (len(r.Data) == 0 || len(r.Data) >= unix.PathMax || strings.ContainsRune(string(r.Data), 0)):
		return bad("data: not the target of a symlink")
	case r.Offset < 0 || r.Size < 0 || r.Offset > r.Size && kind == unix.S_IFREG:
		return bad("offset or file_size is out of range")
	case kind == unix.S_IFREG && int64(len(r.Data)) > r.Size-r.Offset:
		return bad("data reaches beyond file_size")
	}
	return place, nil
}

// openParent opens the directory that will hold the file, making it and its
// parents where they are missing. It takes the file's owner, which the root
// directory does not.
func (c *Copier) openParent(r CopyRequest) (*os.File, error) {
	if err := os.MkdirAll(c.Root, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Dir(filepath.Clean(r.Path))
	if path == filepath.Clean(c.Root) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", path, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	place, err := mount.At(c.Root, path)
	if err != nil {
		return nil, err
	}
	dir, err := place.MakeDir(r.DirMode & 0o777)
	if err != nil {
		return nil, err
	}
	if err := chown(dir, r); err != nil {
		dir.Close()
		return nil, fmt.Errorf("change owner of %q: %w", path, err)
	}
	return dir, nil
}

// chown works on descriptors opened with O_PATH too.
func chown(f *os.File, r CopyRequest) error {
	return unix.Fchownat(int(f.Fd()), "", int(r.UID), int(r.GID), unix.AT_EMPTY_PATH)
}

// copyTarget is a checked request with its parent directory open.
type copyTarget struct {
	CopyRequest
	place  mount.Place
	parent *os.File
	name   string
}

func (t copyTarget) directory() error {
	// Fails with EISDIR on a directory, which is to stay.
	if err := unix.Unlinkat(int(t.parent.Fd()), t.name, 0); err != nil &&
		!errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EISDIR) {
		return err
	}
	dir, err := t.place.MakeDir(t.Mode & 0o777)
	if err != nil {
		return err
	}
	defer dir.Close()
	return t.finish(dir)
}

func (t copyTarget) symlink() error {
	part := t.partName()
	if err := t.unlink(part); err != nil {
		return err
	}
	if err := unix.Symlinkat(string(t.Data), int(t.parent.Fd()), part); err != nil {
		return err
	}
	if err := unix.Fchownat(int(t.parent.Fd()), part, int(t.UID), int(t.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return t.publish(part)
}

// piece writes Data and, when that completes the file, publishes it.
func (t copyTarget) piece() error {
	part := t.partName()
	flags := unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if t.Offset == 0 {
		if err := t.unlink(part); err != nil {
			return err
		}
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	fd, err := unix.Openat(int(t.parent.Fd()), part, flags, 0o600)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the pieces before offset %d are missing: %w", t.Offset, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), part)
	defer f.Close()
	complete, err := t.write(f)
	if err != nil || !complete {
		return err
	}
	if err := t.finish(f); err != nil {
		return err
	}
	return t.publish(part)
}

// write adds Data and reports whether the file is complete. A gap would read as
// zeros where the host has content, so it is refused.
func (t copyTarget) write(f *os.File) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if t.Offset > st.Size() {
		return false, fmt.Errorf("the pieces between %d and %d are missing: %w", st.Size(), t.Offset, errdefs.ErrFailedPrecondition)
	}
	if _, err := f.WriteAt(t.Data, t.Offset); err != nil {
		return false, err
	}
	size := max(st.Size(), t.Offset+int64(len(t.Data)))
	if size > t.Size {
		return false, fmt.Errorf("earlier pieces reach beyond file_size: %w", errdefs.ErrInvalidArgument)
	}
	return size == t.Size, nil
}

// finish sets owner and mode, in this order: a change of owner takes the
// set-user-id bits away.
func (t copyTarget) finish(f *os.File) error {
	if err := chown(f, t.CopyRequest); err != nil {
		return err
	}
	return unix.Chmod(mount.FDPath(f), t.Mode&0o7777)
}

// publish gives the finished part its name. Only a directory has to go first;
// everything else is replaced in one step.
func (t copyTarget) publish(part string) error {
	dir := int(t.parent.Fd())
	err := unix.Renameat(dir, part, dir, t.name)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := t.place.RemoveAll(); err != nil {
		return err
	}
	return unix.Renameat(dir, part, dir, t.name)
}

func (t copyTarget) unlink(name string) error {
	if err := unix.Unlinkat(int(t.parent.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// partName is of fixed length, so that it fits where the name itself does.
func (t copyTarget) partName() string {
	sum := sha256.Sum256([]byte(t.name))
	return partPrefix + hex.EncodeToString(sum[:16])
}
