package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/guest"
)

// bench is one run. Everything it writes but the images lies in dir, which is
// memory.
type bench struct {
	options
	ctx    context.Context
	dir    string
	rootfs string // of every container that is not pulled
	table  table
}

func prepare(ctx context.Context, o options) (*bench, error) {
	if err := cover(); err != nil {
		return nil, err
	}
	b := &bench{options: o, ctx: ctx, dir: "/run/bench", rootfs: filepath.Join(guest.SharedDir, "bench")}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	return b, b.makeRoot()
}

// makeRoot fills the root file system with Debian's busybox. It lies where the
// agent accepts one from the host; its rivals use the same.
func (b *bench) makeRoot() error {
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(b.rootfs, d), 0o755); err != nil {
			return err
		}
	}
	text, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.rootfs, "bin/busybox"), text, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "true", "sleep", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(b.rootfs, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

// spec is what containerd gives a plain container, but for the network, which is
// the pod's.
func (b *bench) spec(id string, args ...string) *specs.Spec {
	mount := func(at, kind string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: kind, Source: kind, Options: options}
	}
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	if cgroups.IsCgroup2UnifiedMode() { // the agent would add it by itself, others would not
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"}
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: b.rootfs},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			mount("/proc", "proc", "nosuid", "noexec", "nodev"),
			mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
			mount("/run", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		},
		Linux: &specs.Linux{
			CgroupsPath:   filepath.Join(b.cgroup, id),
			Namespaces:    namespaces,
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}
