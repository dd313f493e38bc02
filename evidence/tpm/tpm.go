// Package tpm asks a TPM 2.0 for what attestation needs of it: quotes, PCRs of
// the SHA-256 bank, and NV indices. A virtual TPM belongs to whoever runs the
// machine, so each answer is hostile input: bounded in size and time, and
// refused where it does not belong to what was asked.
//
// It is the one importer of github.com/google/go-tpm, whose tpm2 package holds
// the structures of the specification (TCG, TPM 2.0 Library, parts 2 and 3).
package tpm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

// commandTime is how long a single command may take. Linux gives a chip two
// minutes at most for the slowest, which makes keys and is not used here.
const commandTime = 30 * time.Second

// Device is a TPM. It may be used by several goroutines, which take turns. Once
// it has not answered in time, or answered with what is no message, every
// further call fails: nobody knows what it would answer to. Open it anew then.
type Device struct {
	mu   sync.Mutex // one command at a time
	link *link
}

// Open opens the device file of a TPM, such as /dev/tpmrm0. The other form,
// /dev/tpm0, has one user at a time. Close it after use.
func Open(path string) (*Device, error) {
	// Not by os.OpenFile, which would make it non-blocking: reading would then
	// return nothing as long as the TPM works.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open TPM: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return New(os.NewFile(uintptr(fd), path)), nil
}

// New takes any stream that carries commands and responses, such as a socket
// of swtpm. Closing the device closes it.
func New(rw io.ReadWriteCloser) *Device {
	return &Device{link: &link{rw: rw, timeout: commandTime}}
}

// Close gives the device back. It does not wait for a command that hangs.
func (d *Device) Close() error { return d.link.rw.Close() }

// ask runs f while nobody else talks to the TPM. The library's decoder works by
// reflection over what the TPM has answered; a panic of its is an answer that
// cannot be read.
func ask[T any](d *Device, f func(l *link) (T, error)) (v T, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			err = malformed("%v", r)
		}
	}()
	v, err = f(d.link)
	return v, classify(err)
}

// classify gives what the TPM says a class that callers can tell apart.
func classify(err error) error {
	var code tpm2.TPMRC
	switch {
	case err == nil || !errors.As(err, &code):
		return err
	case code.Is(tpm2.TPMRCHandle) || code == tpm2.TPMRCNVUninitialized:
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
}

// malformed is an answer that means nothing.
func malformed(format string, args ...any) error {
	return fmt.Errorf("malformed answer of the TPM: "+format+": %w", append(args, errdefs.ErrDataLoss)...)
}
