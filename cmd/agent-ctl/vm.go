package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

// agentPort is where every agent listens by default.
const agentPort = 1024

// vmFlags describe a machine for `vm start`.
type vmFlags struct {
	kernel, initrd, initdata string
	vsockDevice, console     string
	words                    []string
	memory                   int
	network                  bool
}

func (a *app) vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Boot guests on this machine, for development",
		Args:  cobra.NoArgs,
	}
	var f vmFlags
	start := &cobra.Command{
		Use:   "start",
		Short: "Boot a guest, print its address, and keep it until interrupted",
		Long: "Boot a guest under QEMU, print the address of its agent once that answers,\n" +
			"and keep the guest until it powers off or this command is interrupted.\n" +
			"With --network the guest can be given 10.0.2.15/24 and reaches this machine's\n" +
			"loopback at 10.0.2.2.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return a.vmStart(ctx, &f)
		},
	}
	fl := start.Flags()
	fl.StringVar(&f.kernel, "kernel", "out/guest/vmlinuz", "kernel `FILE`")
	fl.StringVar(&f.initrd, "initrd", "out/guest/initrd.img", "initial file system `FILE`")
	fl.StringVar(&f.initdata, "initdata", "", "initdata disk `FILE`, as `initdata build` writes it")
	fl.StringVar(&f.vsockDevice, "vsock-device", "", "vhost-device-vsock `PROGRAM` for hosts without vhost-vsock")
	fl.StringVar(&f.console, "console", "", "`FILE` for what the guest writes to its console")
	fl.StringArrayVar(&f.words, "append", nil, "further `WORD` of the kernel command line, repeatable")
	fl.IntVar(&f.memory, "memory", 512, "`MIB` of memory")
	fl.BoolVar(&f.network, "network", false, "give the guest a network card")
	cmd.AddCommand(start)
	return cmd
}

func (a *app) vmStart(ctx context.Context, f *vmFlags) (err error) {
	c := vm.Config{Kernel: f.kernel, Initrd: f.initrd, Words: f.words, Memory: f.memory, VsockDevice: f.vsockDevice}
	if f.initdata != "" {
		c.Disks = []vm.Disk{{Path: f.initdata, ReadOnly: true}}
	}
	if f.network {
		c.Network = &vm.Network{}
	}
	if f.console != "" {
		out, err := os.Create(f.console)
		if err != nil {
			return fmt.Errorf("open console file: %w", err)
		}
		defer out.Close()
		c.Console = io.Writer(out)
	}
	if vm.Choose(c.Transport, c.VsockDevice) == vm.Loopback {
		return errors.New("this machine can reach no guest: neither /dev/vhost-vsock nor vhost-device-vsock is there")
	}
	started := time.Now()
	machine, err := vm.Start(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, machine.Stop()) }()
	if err := awaitAgent(ctx, machine); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "agent answers after %d ms (%s, %s)\n", time.Since(started).Milliseconds(), machine.Accelerator(), machine.Transport())
	fmt.Fprintln(a.out, machine.Address(agentPort))
	select {
	case <-machine.Done():
	case <-ctx.Done():
	}
	return nil
}

// readyText is in the line that the agent logs when it begins to serve.
const readyText = `"ready"`

// awaitAgent waits for the agent's own word and then connects. Trying earlier
// can leave the program behind a vhost-user device stuck for good.
func awaitAgent(ctx context.Context, machine *vm.VM) error {
	if err := machine.WaitConsole(ctx, readyText); err != nil {
		return fmt.Errorf("%w; the console of the guest ended with:\n%s", err, tail(machine.Console()))
	}
	conn, err := machine.Dial(ctx, agentPort)
	if err != nil {
		return err
	}
	return conn.Close()
}

// tail keeps the end of a console, where the reason stands.
func tail(text string) string {
	const most = 2048
	return text[max(0, len(text)-most):]
}
