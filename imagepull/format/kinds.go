package format

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// holeSize is the run of zeros that becomes a hole.
const holeSize = 64 << 10

var zeros [holeSize]byte

// make opens the parent of path and removes what is in the way.
func (x *extractor) place(path string) (fd int, base string, err error) {
	if path == "." {
		return -1, "", bad(path, "is the top and no directory")
	}
	if fd, base, err = x.parent(path); err != nil {
		return -1, "", err
	}
	if _, err := x.clear(fd, base, path); err != nil {
		return -1, "", fmt.Errorf("replace %.200q: %w", path, err)
	}
	return fd, base, nil
}

func (x *extractor) file(path string, m *meta, size int64, r io.Reader) error {
	if x.bytes += size; size < 0 || x.bytes > x.limits.Bytes {
		return fmt.Errorf("files of a layer exceed %d bytes: %w", x.limits.Bytes, errdefs.ErrResourceExhausted)
	}
	at, base, err := x.place(path)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make %.200q: %w", path, err)
	}
	err = x.write(fd, size, r)
	if err == nil {
		err = m.apply(fd, path)
	}
	if err == nil {
		err = futimens(fd, m.times)
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %.200q: %w", path, err)
	}
	return nil
}

// write copies size bytes and leaves holes where 64 KiB at a time are zero:
// sparse archives reach us expanded.
func (x *extractor) write(fd int, size int64, r io.Reader) error {
	hole := false
	for left := size; left > 0; {
		n := min(left, holeSize)
		if _, err := io.ReadFull(r, x.buf[:n]); err != nil {
			return broken(unexpected(err))
		}
		left -= n
		if hole = n == holeSize && bytes.Equal(x.buf, zeros[:]); hole {
			if _, err := unix.Seek(fd, n, unix.SEEK_CUR); err != nil {
				return err
			}
			continue
		}
		if err := writeAll(fd, x.buf[:n]); err != nil {
			return err
		}
	}
	if hole {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (x *extractor) symlink(path string, m *meta, target string) error {
	if target == "" || len(target) >= maxName || bytes.IndexByte([]byte(target), 0) >= 0 {
		return bad(path, "is a symlink to a malformed name")
	}
	at, base, err := x.place(path)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, at, base); err != nil {
		return fmt.Errorf("make symlink %.200q: %w", path, err)
	}
	return m.applyAt(at, base, path, false)
}

// hardlink makes a further name for a file of this layer. A file of a layer
// below cannot be reached from here, and copying it would give it a life of
// its own.
func (x *extractor) hardlink(path string, m *meta, target string) error {
	from, err := clean(target, x.limits.Depth)
	if err != nil {
		return bad(path, "is a hard link to a malformed name")
	}
	if from == path {
		return bad(path, "is a hard link to itself")
	}
	dir, name := split(from)
	source, err := x.dir(dir)
	if err != nil {
		return bad(path, "is a hard link to %.200q, which is not in the layer", from)
	}
	mode, _, err := modeAt(source, name)
	if err != nil || mode&unix.S_IFMT != unix.S_IFREG {
		return bad(path, "is a hard link to %.200q, which is no file of the layer", from)
	}
	at, base, err := x.place(path)
	if err != nil {
		return err
	}
	// Making room may have closed or removed the source's directory.
	if source, err = x.dir(dir); err == nil {
		err = unix.Linkat(source, name, at, base, 0)
	}
	if err != nil {
		return fmt.Errorf("link %.200q: %w", path, err)
	}
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %.200q: %w", path, err)
	}
	defer unix.Close(fd)
	if err := m.apply(fd, path); err != nil {
		return err
	}
	return futimens(fd, m.times)
}

// device makes a device node if that is allowed. Containers get their devices
// from the runtime, so images do without.
func (x *extractor) device(path string, m *meta, hdr *tar.Header) error {
	major, minor := hdr.Devmajor, hdr.Devminor
	if hdr.Typeflag == tar.TypeChar && major == 0 && minor == 0 {
		return bad(path, "is a deletion in disguise")
	}
	if !x.limits.AllowDevs {
		x.result.Dropped++
		return nil
	}
	if major < 0 || major >= 1<<12 || minor < 0 || minor >= 1<<20 {
		return bad(path, "is a device with a number out of range")
	}
	kind := uint32(unix.S_IFCHR)
	if hdr.Typeflag == tar.TypeBlock {
		kind = unix.S_IFBLK
	}
	return x.node(path, m, kind, unix.Mkdev(uint32(major), uint32(minor)))
}

func (x *extractor) node(path string, m *meta, kind uint32, dev uint64) error {
	at, base, err := x.place(path)
	if err != nil {
		return err
	}
	if err := unix.Mknodat(at, base, kind|0o600, int(dev)); err != nil {
		return fmt.Errorf("make node %.200q: %w", path, err)
	}
	return m.applyAt(at, base, path, true)
}
