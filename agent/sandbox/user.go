package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/ocispec"
)

// lookUp resolves the name that an image gives its user in the databases of the
// image. Their files are opened inside of its root file system, whatever links
// it has.
func lookUp(name, rootfs string) (specs.User, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return specs.User{}, fmt.Errorf("open root of image: %w", err)
	}
	defer root.Close()
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
func openFile(root *os.Root, name string) (*os.File, error) {
	st, err := root.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", name, errdefs.ErrInvalidArgument)
	}
	return root.Open(name)
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
