package format

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// extractor is the state of one archive.
type extractor struct {
	*tree
	limits Limits
	result Result
	bytes  int64 // of files, holes included
	buf    []byte
	// times of directories are set at the end: making what they hold changes
	// them. In the order of the archive.
	times []dirTime
}

type dirTime struct {
	path string
	ts   [2]unix.Timespec
}

// extract unpacks the archive in r to dir. It stops behind the archive's end
// mark.
func extract(ctx context.Context, r io.Reader, dir string, l Limits) (Result, error) {
	t, err := newTree(dir)
	if err != nil {
		return Result{}, err
	}
	defer t.close()
	x := &extractor{tree: t, limits: l, buf: make([]byte, holeSize)}
	if err := x.all(ctx, tar.NewReader(r)); err != nil {
		return x.result, err
	}
	if err := x.setTimes(); err != nil {
		return x.result, err
	}
	x.result.Implied = slices.Sorted(maps.Keys(t.implied))
	return x.result, nil
}

func (x *extractor) all(ctx context.Context, r *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return broken(err)
		}
		if x.result.Entries++; x.result.Entries > x.limits.Entries {
			return fmt.Errorf("layer of more than %d entries: %w", x.limits.Entries, errdefs.ErrResourceExhausted)
		}
		if err := x.entry(hdr, interruptible{ctx, r}); err != nil {
			return err
		}
	}
}

// interruptible ends the writing of a file with ctx. The holes of a sparse file
// come from no source that could be closed, and can take long.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// broken gives a class to what the archive's reader says.
func broken(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	return err
}

// entry makes what one header describes.
func (x *extractor) entry(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	path, err := clean(hdr.Name, x.limits.Depth)
	if err != nil {
		return err
	}
	mark, target, err := markerOf(path)
	switch {
	case err != nil || mark == skipped:
		return err
	case mark != ordinary:
		return x.mark(path, mark, target)
	}
	m, err := metaOf(hdr)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(path, m)
	case tar.TypeReg, tar.TypeGNUSparse, '\x00', '7':
		return x.file(path, m, hdr.Size, r)
	case tar.TypeSymlink:
		return x.symlink(path, m, hdr.Linkname)
	case tar.TypeLink:
		return x.hardlink(path, m, hdr.Linkname)
	case tar.TypeFifo:
		return x.node(path, m, unix.S_IFIFO, 0)
	case tar.TypeChar, tar.TypeBlock:
		return x.device(path, m, hdr)
	}
	return fmt.Errorf("entry %.200q of type %q: %w", path, hdr.Typeflag, errdefs.ErrNotImplemented)
}

// mark makes a deletion or an opaque directory in overlayfs's form.
func (x *extractor) mark(path string, m marker, target string) error {
	fd, _, err := x.parent(path)
	if err != nil {
		return err
	}
	if m == opaque {
		return setOpaque(fd)
	}
	mode, whiteout, err := modeAt(fd, target)
	switch {
	case err != nil:
		return err
	case whiteout:
		return nil
	case mode != 0:
		return bad(path, "deletes what the same layer brought")
	}
	if err := unix.Mknodat(fd, target, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("mark %.200q deleted: %w", path, err)
	}
	return nil
}

// setOpaque hides what lower layers have in a directory. A file system that
// cannot store the mark would bring deleted files back, so failing is right.
func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

func (x *extractor) directory(path string, m *meta) error {
	if path == "." {
		delete(x.implied, ".")
		return x.dirMeta(path, x.top, m)
	}
	fd, base, err := x.parent(path)
	if err != nil {
		return err
	}
	mode, _, err := modeAt(fd, base)
	if err != nil {
		return err
	}
	hidden := false
	if mode&unix.S_IFMT != unix.S_IFDIR {
		// A directory in place of a deletion shows nothing of what was deleted.
		if hidden, err = x.clear(fd, base, path); err != nil {
			return fmt.Errorf("replace %.200q: %w", path, err)
		}
		if err := unix.Mkdirat(fd, base, 0o700); err != nil {
			return fmt.Errorf("make directory %.200q: %w", path, err)
		}
	}
	delete(x.implied, path)
	dir, err := x.dir(path)
	if err != nil {
		return fmt.Errorf("open directory %.200q: %w", path, err)
	}
	if hidden {
		if err := setOpaque(dir); err != nil {
			return err
		}
	}
	return x.dirMeta(path, dir, m)
}

func (x *extractor) dirMeta(path string, fd int, m *meta) error {
	x.times = append(x.times, dirTime{path, m.times})
	return m.apply(fd, path)
}

// setTimes sets the times of directories. One that was removed since is skipped.
func (x *extractor) setTimes() error {
	for _, d := range slices.Backward(x.times) {
		fd, err := x.dir(d.path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err == nil {
			err = futimens(fd, d.ts)
		}
		if err != nil {
			return fmt.Errorf("set times of %.200q: %w", d.path, err)
		}
	}
	return nil
}
