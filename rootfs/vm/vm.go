// Package vm starts a guest under QEMU for demonstrations and tests, and takes
// away everything it started. It knows nothing of the agent: it gives a kernel,
// an initrd and a command line a machine with a vsock, keeps the console, and
// says which accelerator and which vsock the machine got.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// A Config describes one machine. Kernel is mandatory, and so is one of Initrd
// and Root.
type Config struct {
	Kernel, Initrd string
	// Root is a disk image whose first partition, an ext4, is the guest's root.
	// The guest sees it as an NVMe disk and cannot change it.
	Root    string
	Words   []string // further words of the kernel command line
	Memory  int      // MiB; 0 means 512
	CPUs    int      // 0 means 1
	Disks   []Disk
	Shares  []Share
	Network *Network // nil for no network card
	// TPM is the directory of a TPM that swtpm makes, with its keys; empty for a
	// machine without one.
	TPM string
	// Room is what can be plugged in while the machine runs.
	Room Room
	// Machine is QEMU's machine with its options; empty means q35.
	Machine string
	// Arguments of QEMU's go behind all others: devices of tests' own.
	Arguments []string
	Transport Transport
	// VsockDevice is the vhost-device-vsock program, which Auto and VhostUser
	// use; empty looks in PATH.
	VsockDevice string
	// Accelerator is "kvm" or "tcg"; empty probes for kvm.
	Accelerator string
	// Console, when set, receives the console as it is written.
	Console io.Writer
}

// A Disk is a raw image that the guest sees as a virtio block device.
type Disk struct {
	Path     string
	ReadOnly bool
	Serial   string
	Slot     int // PCI slot, 0 lets QEMU choose
}

// A Share is a directory of the host that the guest can mount as virtio-fs.
type Share struct{ Tag, Path string }

// A Network is a card behind QEMU's user-mode network: the guest is
// 10.0.2.15/24, and reaches the host's loopback at 10.0.2.2 unless Restrict.
type Network struct {
	MAC      string // empty for QEMU's usual address
	Restrict bool   // nothing but the guest itself is reachable
	Slot     int
}

// A VM is a running machine. Its methods may be called concurrently.
type VM struct {
	accelerator string
	transport   Transport
	address     func(port uint32) string                                 // nil under Loopback
	dial        func(ctx context.Context, port uint32) (net.Conn, error) // nil under Loopback
	console     *console
	dir         string
	helpers     []*process
	qemu        *process

	mu      sync.Mutex // guards monitor
	monitor *monitor   // nil until first used
}

// Start boots a machine and returns while its kernel starts. Use Dial and
// WaitConsole to see how far it is. Stop must be called, also after the
// machine ended by itself.
func Start(ctx context.Context, c Config) (*VM, error) {
	if c.Kernel == "" || (c.Initrd == "") == (c.Root == "") {
		return nil, fmt.Errorf("start vm: a kernel and either an initrd or a root disk are mandatory: %w", errdefs.ErrInvalidArgument)
	}
	c.Memory, c.CPUs = max(c.Memory, 0), max(c.CPUs, 1)
	if c.Memory == 0 {
		c.Memory = 512
	}
	// Socket paths are short: sockaddr_un holds 108 bytes.
	dir, err := os.MkdirTemp("", "coffer-vm-")
	if err != nil {
		return nil, fmt.Errorf("make vm directory: %w", err)
	}
	v := &VM{dir: dir, console: newConsole(c.Console)}
	if err := v.start(ctx, c); err != nil {
		return nil, errors.Join(err, v.Stop())
	}
	return v, nil
}

func (v *VM) start(ctx context.Context, c Config) error {
	v.accelerator = c.Accelerator
	if v.accelerator == "" {
		v.accelerator = probe(ctx, c.Kernel)
	}
	args := machineArgs(c, v.accelerator)
	vsock, err := v.startVsock(ctx, c)
	if err != nil {
		return err
	}
	shares, err := v.startShares(ctx, c.Shares)
	if err != nil {
		return err
	}
	tpm, err := v.startTPM(ctx, c.TPM)
	if err != nil {
		return err
	}
	if v.transport == VhostUser || len(c.Shares) > 0 {
		args = append(args, sharedMemoryArgs(c.Memory)...)
	}
	args = append(append(append(args, vsock...), shares...), tpm...)
	args = append(args, "-qmp", "unix:"+escape(v.monitorPath())+",server=on,wait=off")
	args = append(args, c.Arguments...)
	v.qemu, err = startProcess(v.console, qemuProgram, args...)
	return err
}

// Accelerator is "kvm" or "tcg".
func (v *VM) Accelerator() string { return v.accelerator }

// Transport is how Dial reaches the guest.
func (v *VM) Transport() Transport { return v.transport }

// Console returns the end of what the guest and QEMU wrote.
func (v *VM) Console() string { return v.console.String() }

// WaitConsole waits until the console has shown text.
func (v *VM) WaitConsole(ctx context.Context, text string) error {
	return v.console.wait(ctx, text, v.qemu.done)
}

// Done is closed when the machine has ended, by itself or by Stop.
func (v *VM) Done() <-chan struct{} { return v.qemu.done }

// Wait waits for the machine to end by itself and reports how QEMU fared.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.qemu.done:
		return v.qemu.err
	case <-ctx.Done():
		return fmt.Errorf("wait for vm: %w", ctx.Err())
	}
}

// Stop ends the machine, without asking the guest, and removes its sockets. It
// may be called more than once.
func (v *VM) Stop() error {
	for _, p := range append([]*process{v.qemu}, v.helpers...) {
		if p != nil {
			p.kill()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.monitor != nil {
		v.monitor.close()
		v.monitor = nil
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return fmt.Errorf("remove vm directory: %w", err)
	}
	return nil
}

// helper starts a device program and waits for the socket it listens on.
func (v *VM) helper(ctx context.Context, socket, program string, args ...string) error {
	p, err := startProcess(v.console, program, args...)
	if err != nil {
		return err
	}
	v.helpers = append(v.helpers, p)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if _, err := os.Stat(socket); err == nil {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it listened: %s: %w", filepath.Base(program), v.Console(), errdefs.ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", filepath.Base(program), ctx.Err())
		}
	}
}
