package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

func (a *app) vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Boot a guest under QEMU, for demonstrations and tests",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.vmStartCommand())
	return cmd
}

// vmFlags describe the machine beyond what goes straight into its Config.
type vmFlags struct {
	config   vm.Config
	initdata string
	disks    []string
	shares   []string
	network  bool
	console  string
	wait     time.Duration
	port     uint32
}

func (a *app) vmStartCommand() *cobra.Command {
	var f vmFlags
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Boot a guest and keep it until it ends or we are interrupted",
		Long: "Boot a guest and keep it until it ends or we are interrupted. Its agent's\n" +
			"address is printed once the agent serves.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return a.vmStart(ctx, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.config.Kernel, "kernel", "out/guest/vmlinuz", "`FILE` with the kernel")
	fl.StringVar(&f.config.Initrd, "initrd", "out/guest/initrd.img", "`FILE` with the initrd")
	fl.StringArrayVar(&f.config.Words, "append", nil, "`WORD` for the kernel command line, repeatable")
	fl.IntVar(&f.config.Memory, "memory", 0, "`MIB` of memory (default 512)")
	fl.IntVar(&f.config.CPUs, "cpus", 0, "`N` processors (default 1)")
	fl.StringVar(&f.config.Accelerator, "accelerator", "", "`NAME`, kvm or tcg (default: kvm where it works)")
	fl.StringVar((*string)(&f.config.Transport), "transport", "", "way to the guest's vsock (default: what this machine can do)")
	fl.StringVar(&f.config.VsockDevice, "vsock-device", "", "`PROGRAM` vhost-device-vsock, where the kernel has no vhost-vsock")
	fl.StringVar(&f.initdata, "initdata", "", "`FILE` with an initdata disk")
	fl.StringArrayVar(&f.disks, "disk", nil, "`FILE` with a disk, repeatable")
	fl.StringArrayVar(&f.shares, "share", nil, "share a directory as `TAG=DIR`, repeatable")
	fl.BoolVar(&f.network, "network", false, "give the guest QEMU's user network: it is 10.0.2.15/24, we are 10.0.2.2")
	fl.StringVar(&f.console, "console", "", "`FILE` to write the console to")
	fl.DurationVar(&f.wait, "wait", 2*time.Minute, "how long the agent may take to serve")
	fl.Uint32Var(&f.port, "port", 1024, "vsock `PORT` of the agent")
	return cmd
}

func (a *app) vmStart(ctx context.Context, f *vmFlags) (err error) {
	if err := f.complete(); err != nil {
		return err
	}
	if f.console != "" {
		console, err := os.Create(f.console)
		if err != nil {
			return err
		}
		defer console.Close()
		f.config.Console = console
	}
	started := time.Now()
	m, err := vm.Start(ctx, f.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	a.address = m.Address(f.port)
	if err := a.untilServing(ctx, m, f.wait); err != nil {
		return err
	}
	a.note("agent answers after %d ms (%s, %s)", time.Since(started).Milliseconds(), m.Accelerator(), m.Transport())
	if err := a.print(map[string]string{
		"address": a.address, "accelerator": m.Accelerator(), "transport": string(m.Transport()),
	}, [][]string{{a.address}}); err != nil {
		return err
	}
	if err := m.Wait(ctx); ctx.Err() == nil {
		return err
	}
	return nil // interrupted, which is the usual end
}

// complete turns the flags that need it into parts of the Config.
func (f *vmFlags) complete() error {
	if vm.Choose(f.config.Transport, f.config.VsockDevice) == vm.Loopback {
		return errors.New("this machine can reach no guest: neither /dev/vhost-vsock nor vhost-device-vsock is there")
	}
	if f.initdata != "" {
		f.config.Disks = append(f.config.Disks, vm.Disk{Path: f.initdata, ReadOnly: true})
	}
	for _, d := range f.disks {
		f.config.Disks = append(f.config.Disks, vm.Disk{Path: d})
	}
	for _, s := range f.shares {
		tag, dir, ok := strings.Cut(s, "=")
		if !ok || tag == "" || dir == "" {
			return usagef("--share %q: must be TAG=DIR", s)
		}
		f.config.Shares = append(f.config.Shares, vm.Share{Tag: tag, Path: dir})
	}
	if f.network {
		f.config.Network = &vm.Network{}
	}
	return nil
}

// readyText is in the line that the agent logs when it begins to serve.
const readyText = `"ready"`

// untilServing waits for the agent's own word and only then connects. Trying
// earlier can leave the program behind a vhost-user device stuck for good.
func (a *app) untilServing(ctx context.Context, m *vm.VM, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := m.WaitConsole(ctx, readyText); err != nil {
		return fmt.Errorf("%w; the console of the guest ended with: %s", err, tail(m.Console()))
	}
	c, err := a.dialChecked(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// tail keeps the end of a console, where the reason stands.
func tail(text string) string {
	const most = 2048
	return text[max(0, len(text)-most):]
}
