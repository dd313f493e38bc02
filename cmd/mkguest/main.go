// Command mkguest builds guest images: a kernel and an initrd that holds the
// agent. See rootfs/image.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/rootfs/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:          "mkguest",
		Short:        "Build guest images for confidential pods",
		SilenceUsage: true,
	}
	root.AddCommand(buildCommand(), vsockDeviceCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

func buildCommand() *cobra.Command {
	var o image.Options
	var add, programs []string
	cmd := &cobra.Command{
		Use:   "build --agent PROGRAM --out DIR",
		Short: "Build vmlinuz, initrd.img and manifest.json",
		Long: `Build vmlinuz, initrd.img and manifest.json.

Run it inside the source tree. The kernel is the package that
rootfs/packages.lock pins; it comes from the mirror in this machine's apt
sources and is kept in .cache. The same inputs give the same bytes;
manifest.json lists them with their checksums.`,
		Example: `  mkguest build --agent bin/coffer-agent --out out/guest
  mkguest build --agent bin/coffer-agent --config agent.toml --policy policy.rego \
      --add ca.pem:/etc/ssl/certs/site.pem --out out/guest`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, a := range add {
				src, dst, ok := strings.Cut(a, ":")
				if !ok {
					return fmt.Errorf("--add wants SOURCE:TARGET, got %q: %w", a, errdefs.ErrInvalidArgument)
				}
				o.Add = append(o.Add, image.Addition{Source: src, Target: dst})
			}
			for _, name := range programs {
				files, err := image.Program(name)
				if err != nil {
					return err
				}
				o.Add = append(o.Add, files...)
			}
			return build(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Agent, "agent", "bin/coffer-agent", "static agent `program`, the image's /init")
	f.StringVar(&o.Pause, "pause", "", "static pause `program` (default: built from rootfs/pause)")
	f.StringVar(&o.Config, "config", "", "the image's agent.toml `file`")
	f.StringVar(&o.Policy, "policy", "", "default policy `file` (default: refuse every request)")
	f.StringVar(&o.CABundle, "certificates", "/etc/ssl/certs/ca-certificates.crt", "`file` of trusted certificates, empty for none")
	f.StringArrayVar(&add, "add", nil, "add a file or directory, as `SOURCE:TARGET` (may be repeated)")
	f.StringSliceVar(&o.Spare, "spare-modules", nil, "kernel modules to have for storages and hosts that ask for them (default "+strings.Join(image.DefaultSpare(), ",")+")")
	f.StringArrayVar(&programs, "program", nil, "add a `PROGRAM` of this machine with its libraries, such as mkfs.ext4 for block emptyDirs (may be repeated)")
	f.StringSliceVar(&o.Modules, "modules", nil, "kernel modules to load at boot, in order (default "+strings.Join(image.DefaultModules(), ",")+")")
	f.StringVar(&o.Compression, "compression", "zstd", "of the initrd: zstd, gzip or none")
	f.BoolVar(&o.Disk, "disk", false, "also build disk.img, the same root as an ext4 partition")
	f.StringVar(&o.Out, "out", "out/guest", "output `directory`")
	return cmd
}

func build(ctx context.Context, o image.Options) error {
	store, err := openStore()
	if err != nil {
		return err
	}
	if o.Pause == "" {
		if o.Pause, err = store.BuildPause(ctx); err != nil {
			return err
		}
	}
	m, err := store.Build(ctx, o)
	if err != nil {
		return err
	}
	for _, f := range m.Outputs {
		fmt.Printf("%s  %s/%s\n", f.SHA256, o.Out, f.Name)
	}
	return nil
}

func vsockDeviceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vsock-device",
		Short: "Fetch the vhost-device-vsock program and print its path",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := openStore()
			if err != nil {
				return err
			}
			path, err := store.VsockDevice(cmd.Context())
			if err == nil {
				fmt.Println(path)
			}
			return err
		},
	}
}

func openStore() (*image.Store, error) {
	root, err := image.FindRoot()
	if err != nil {
		return nil, err
	}
	return &image.Store{Root: root, Progress: func(line string) { fmt.Fprintln(os.Stderr, "mkguest:", line) }}, nil
}
