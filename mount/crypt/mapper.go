// Package crypt protects block devices by device-mapper: dm-verity for layers
// that are only read, dm-crypt over dm-integrity for scratch space. It talks to
// the kernel by ioctl alone, so that no program in the guest handles a key, and
// what cannot be protected is an error.
package crypt

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// A Mapper makes mapped devices. The zero value is that of this machine. Its
// methods may be called concurrently.
type Mapper struct {
	Dev string // "/dev" when empty
}

// A Device is a mapped device, made by one of the Mapper's methods.
type Device struct {
	Node   string // path of the block device
	mapper *Mapper
	name   string
	below  *Device // what it lies on; nil for a device of the machine's own
}

// table is one target that fills a whole mapped device.
type table struct {
	target  string
	sectors uint64       // of 512 bytes
	params  secret.Bytes // may hold a key
	ro      bool
}

// Remove takes the device away, and those below it. Someone who still has it
// open keeps it until they close it. The key goes with it.
func (d *Device) Remove() error {
	err := d.mapper.remove(d.name)
	if d.below != nil {
		err = errors.Join(err, d.below.Remove())
	}
	return err
}

// create makes a device of one table. Its name is random: one that is derived
// from what the host says could meet another one.
func (m *Mapper) create(t table) (*Device, error) {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("name mapped device: %w", err)
	}
	d := &Device{mapper: m, name: "coffer-" + hex.EncodeToString(random[:])}
	flags := uint32(0)
	if t.ro {
		flags |= unix.DM_READONLY_FLAG
	}
	number, err := m.call(unix.DM_DEV_CREATE, d.name, flags, nil)
	if err != nil {
		return nil, fmt.Errorf("create mapped device: %w", err)
	}
	d.Node = filepath.Join(m.dev(), "dm-"+strconv.Itoa(int(unix.Minor(number))))
	if err := m.load(d.name, t); err != nil {
		return nil, errors.Join(err, m.remove(d.name))
	}
	return d, nil
}

// load gives the device a table and puts it in force.
func (m *Mapper) load(name string, t table) error {
	flags := uint32(unix.DM_SECURE_DATA_FLAG) // the kernel wipes its copy
	if t.ro {
		flags |= unix.DM_READONLY_FLAG
	}
	data := t.encode()
	defer clear(data)
	if _, err := m.call(unix.DM_TABLE_LOAD, name, flags, data); err != nil {
		return fmt.Errorf("load %s table: %w", t.target, err)
	}
	if _, err := m.call(unix.DM_DEV_SUSPEND, name, 0, nil); err != nil {
		return fmt.Errorf("start %s: %w", t.target, err)
	}
	return nil
}

func (m *Mapper) remove(name string) error {
	if _, err := m.call(unix.DM_DEV_REMOVE, name, unix.DM_DEFERRED_REMOVE, nil); err != nil {
		return fmt.Errorf("remove mapped device: %w", err)
	}
	return nil
}

// encode lays a table out as struct dm_target_spec and its parameters.
func (t table) encode() []byte {
	spec := unix.DmTargetSpec{Length: t.sectors}
	copy(spec.Target_type[:], t.target)
	const size = int(unsafe.Sizeof(spec))
	// The parameters end with a zero byte, and the next target would begin at a
	// multiple of eight.
	data := make([]byte, (size+len(t.params)+1+7)&^7)
	spec.Next = uint32(len(data))
	copy(data, unsafe.Slice((*byte)(unsafe.Pointer(&spec)), size))
	copy(data[size:], t.params)
	return data
}

// call is one ioctl on the control node; see Documentation/admin-guide/
// device-mapper and include/uapi/linux/dm-ioctl.h. data follows the header. It
// returns the device's number.
func (m *Mapper) call(request uint, name string, flags uint32, data []byte) (uint64, error) {
	control, err := os.OpenFile(filepath.Join(m.dev(), unix.DM_DIR, unix.DM_CONTROL_NODE), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("the guest's kernel has no device-mapper: %w", errdefs.ErrNotImplemented)
	}
	if err != nil {
		return 0, err
	}
	defer control.Close()
	header := unix.DmIoctl{Version: [3]uint32{unix.DM_VERSION_MAJOR}, Flags: flags}
	copy(header.Name[:], name)
	const size = int(unsafe.Sizeof(header))
	buf := make([]byte, max(size+len(data), pageSize)) // the kernel answers into it
	defer clear(buf)
	header.Data_size, header.Data_start = uint32(len(buf)), uint32(size)
	if data != nil {
		header.Target_count = 1
	}
	copy(buf, unsafe.Slice((*byte)(unsafe.Pointer(&header)), size))
	copy(buf[size:], data)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), uintptr(request), uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
		return 0, errno
	}
	return binary.NativeEndian.Uint64(buf[unsafe.Offsetof(header.Dev):]), nil
}

// pageSize is a size for answers, not that of memory.
const pageSize = 4096

func (m *Mapper) dev() string {
	if m.Dev == "" {
		return "/dev"
	}
	return m.Dev
}

// number names a block device to the kernel in a way that no renaming changes.
func number(node string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return "", fmt.Errorf("stat %q: %w", node, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%q is no block device: %w", node, errdefs.ErrInvalidArgument)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// size returns the size of a block device in bytes.
func size(f *os.File) (uint64, error) {
	var n uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0, fmt.Errorf("size of %q: %w", f.Name(), errno)
	}
	return n, nil
}
