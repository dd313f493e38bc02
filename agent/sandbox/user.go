package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/ocispec"
)

// lookUp resolves the name that an image gives its user in the databases of the
// image. Their files are opened inside of its root file system, whatever links
// it has: a link that leads out of it, or starts at the top, means a place in it.
func lookUp(name, rootfs string) (specs.User, error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return specs.User{}, fmt.Errorf("open root of image: %w", err)
	}
	defer unix.Close(root)
	passwd, err := openFile(root, "etc/passwd")
	if err != nil {
		return specs.User{}, fmt.Errorf("open users of image: %w", err)
	}
	defer closeFile(passwd)
	group, err := openFile(root, "etc/group")
	if err != nil {
		return specs.User{}, fmt.Errorf("open groups of image: %w", err)
	}
	defer closeFile(group)
	return ocispec.ResolveUser(name, reader(passwd), reader(group))
}

// openFile opens a regular file; one that is missing is nil.
func openFile(root int, name string) (*os.File, error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, // a pipe must not hold us
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// reader keeps a nil file a nil interface.
func reader(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}
