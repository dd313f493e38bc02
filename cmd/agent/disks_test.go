package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// coverDev gives the guest a /dev with the usual devices and disks of initdata
// by name, so that the machine's own disks are not looked at.
func coverDev(t *testing.T, disks map[string]string) {
	t.Helper()
	numbers := map[string]int{}
	for name, text := range disks {
		numbers[name] = loopDisk(t, text)
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	node := func(name string, kind uint32, major, minor uint32) {
		if err := unix.Mknod(filepath.Join("/dev", name), kind|0o666, int(unix.Mkdev(major, minor))); err != nil {
			t.Fatal(err)
		}
	}
	for minor, name := range map[uint32]string{3: "null", 5: "zero", 7: "full", 8: "random", 9: "urandom", 11: "kmsg"} {
		node(name, unix.S_IFCHR, 1, minor)
	}
	node("fuse", unix.S_IFCHR, 10, 229)
	for name, number := range numbers {
		node(name, unix.S_IFBLK, 7, uint32(number))
	}
}

// loopDisk packs a document on a loop disk and returns its number.
func loopDisk(t *testing.T, text string) int {
	t.Helper()
	packed, err := initdata.EncodeDisk([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initdata.img")
	if err := os.WriteFile(path, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 20 { // another test may take the number in between
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		if err = attachLoop(t, number, file); err == nil {
			return number
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
	}
	t.Fatal("no loop disk is free")
	return 0
}

func attachLoop(t *testing.T, number int, file *os.File) error {
	t.Helper()
	node := filepath.Join(t.TempDir(), fmt.Sprint("loop", number))
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(number)))); err != nil {
		return err
	}
	disk, err := os.OpenFile(node, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		disk.Close()
		return err
	}
	t.Cleanup(func() {
		if err := unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Error(err)
		}
		disk.Close()
	})
	return nil
}
