package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The direction bits of an ioctl differ between architectures; these are taken
// from requests of known direction.
const (
	iocRead  = unix.FS_IOC_GETFLAGS &^ 0x1fffffff
	iocWrite = unix.FS_IOC_GET_ENCRYPTION_POLICY &^ 0x1fffffff
)

// Requests of the file systems' own ioctls, from fs/ext4/ext4.h and
// fs/xfs/libxfs/xfs_fs.h, with the size of their argument.
const (
	ext4ResizeFS  = iocWrite | 8<<16 | 'f'<<8 | 16
	xfsGeometryV1 = iocRead | 112<<16 | 'X'<<8 | 100
	xfsGrowFSData = iocWrite | 16<<16 | 'X'<<8 | 110
)

const (
	xfsMagic       = 0x58465342
	sectorSize     = 512 // of sysfs, whatever the disk's own
	maxVolumeBytes = 1 << 60
)

// Resize grows the file system mounted at path to size bytes, rounded down to
// its blocks, while it is in use. The disk below must have that size already:
// the host makes it so, and the kernel hears of it. The size that is there is
// no error, and a smaller one is refused, since a mounted file system does not
// shrink. Only ext4 and xfs can be resized this way.
func (v Volumes) Resize(ctx context.Context, path string, size uint64) error {
	if size == 0 || size > maxVolumeBytes {
		return fmt.Errorf("size: %d bytes is no size of a volume: %w", size, errdefs.ErrInvalidArgument)
	}
	err := v.Mounts.Visit(ctx, path, func(root *os.File) error {
		before, err := grow(root, size)
		if err == nil {
			slog.InfoContext(ctx, "volume resized", "path", path, "from", before, "to", size)
		}
		return err
	})
	if errors.Is(err, errSize) {
		return fmt.Errorf("size: %w", err)
	}
	if err != nil {
		return fmt.Errorf("volume_guest_path: %w", err)
	}
	return nil
}

// errSize marks what is wrong with the size and not with the path.
var errSize = fmt.Errorf("size does not fit: %w", errdefs.ErrInvalidArgument)

// grow returns the former size in bytes, without the file system's own records.
func grow(root *os.File, size uint64) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	block := uint64(st.Bsize)
	now := st.Blocks * block
	var resize func(*os.File, uint64) error
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		resize = growExt4
	case xfsMagic:
		resize = growXFS
	default:
		return 0, fmt.Errorf("a file system of type %#x cannot be resized: %w", st.Type, errdefs.ErrNotImplemented)
	}
	if size < now {
		return 0, fmt.Errorf("%d bytes are less than the %d that the volume has: %w", size, now, errSize)
	}
	disk, err := diskSize(root)
	if err != nil {
		return 0, err
	}
	if size > disk {
		return 0, fmt.Errorf("%d bytes are more than the %d of the disk: %w", size, disk, errSize)
	}
	return now, resize(root, size/block)
}

// diskSize is how large the block device below a file system is.
func diskSize(root *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return 0, fmt.Errorf("find disk: %w", err)
	}
	name := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	text, err := readWord(filepath.Join("/sys/dev/block", name, "size"))
	if err != nil {
		return 0, fmt.Errorf("read size of disk %s: %w", name, err)
	}
	sectors, err := strconv.ParseUint(text, 10, 54)
	if err != nil {
		return 0, fmt.Errorf("read size of disk %s: %w", name, err)
	}
	return sectors * sectorSize, nil
}

// growExt4 hands the kernel the new number of blocks. It takes the present
// number for a success.
func growExt4(root *os.File, blocks uint64) error {
	err := ioctl(root, ext4ResizeFS, unsafe.Pointer(&blocks))
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the kernel does not take %d blocks: %w", blocks, errSize)
	}
	return explainResize(err)
}

// growXFS grows the data section and keeps the share of inodes, which is part
// of the same argument.
func growXFS(root *os.File, blocks uint64) error {
	var geometry struct {
		_          [7]uint32 // sizes of blocks, groups, sectors, inodes
		imaxpct    uint32
		datablocks uint64
		_          [9]uint64 // to the 112 bytes that the kernel writes
	}
	if err := ioctl(root, xfsGeometryV1, unsafe.Pointer(&geometry)); err != nil {
		return fmt.Errorf("read geometry: %w", err)
	}
	if blocks < geometry.datablocks {
		return fmt.Errorf("%d blocks are less than the %d that the volume has: %w", blocks, geometry.datablocks, errSize)
	}
	want := struct {
		newblocks uint64
		imaxpct   uint32
		_         uint32
	}{newblocks: blocks, imaxpct: geometry.imaxpct}
	return explainResize(ioctl(root, xfsGrowFSData, unsafe.Pointer(&want)))
}

func explainResize(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("another resize is under way: %w", errdefs.ErrUnavailable)
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("this file system cannot be resized while mounted: %w", errdefs.ErrNotImplemented)
	}
	return fmt.Errorf("resize: %w", err)
}

func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
