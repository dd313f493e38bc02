package measure

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
)

// registersDir is where kernels from 6.16 on show the registers of TDX
// (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest).
const registersDir = "sys/devices/virtual/misc/tdx_guest/measurements"

// Files are the measurement registers of TDX as files below the root of the
// file system, which is "/" but in tests.
type Files string

// MRConfigID reads the register which the host fills at launch. Where the
// kernel does not show it the error wraps errdefs.ErrNotImplemented.
func (f Files) MRConfigID() ([]byte, error) { return f.read("mrconfigid") }

// RTMR reads the runtime register with the index 0 to 3.
func (f Files) RTMR(index int) ([]byte, error) { return f.read(rtmr(index)) }

func rtmr(index int) string { return "rtmr" + strconv.Itoa(index) + ":sha384" }

// Extend mixes a SHA-384 digest into a runtime register. 0 and 1 belong to the
// firmware. Where the kernel offers no way to it the error wraps
// errdefs.ErrNotImplemented, and nothing was extended.
func (f Files) Extend(index int, digest []byte) error {
	if index != 2 && index != 3 || len(digest) != 48 {
		return fmt.Errorf("extend register %d with %d bytes: it takes 48 bytes and register 2 or 3: %w", index, len(digest), errdefs.ErrInvalidArgument)
	}
	file, err := os.OpenFile(f.path(rtmr(index)), os.O_WRONLY, 0)
	if err != nil {
		return notOffered(err)
	}
	// One write is one extension, so a short one must not be continued.
	_, err = file.Write(digest)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("extend register %d: %w", index, err)
	}
	return nil
}

func (f Files) read(name string) ([]byte, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, notOffered(err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 49))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) != 48 {
		return nil, fmt.Errorf("read %s: it does not have 48 bytes: %w", name, errdefs.ErrInvalidArgument)
	}
	return b, nil
}

func (f Files) path(name string) string { return filepath.Join(string(f), registersDir, name) }

// notOffered turns the absence of a file into a word of its own: older kernels
// have none of them.
func notOffered(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("NOT_SUPPORTED: this kernel has no %s (Linux 6.16 and later have): %w", registersDir, errdefs.ErrNotImplemented)
	}
	return fmt.Errorf("measurement register: %w", err)
}
