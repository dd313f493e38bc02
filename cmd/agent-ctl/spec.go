package main

import (
	"encoding/json"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// bundles is where the guest keeps containers. Policies and shims know it too.
const bundles = "/run/kata-containers"

// defaultSpec is what containerd gives a plain container, as far as a guest can
// use it: no network namespace, because the pod's network is the guest's own,
// and /dev/shm of its own.
func defaultSpec(id string, p *specs.Process) *specs.Spec {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	p.NoNewPrivileges = true
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 20, Soft: 1024}}
	return &specs.Spec{
		Version: "1.2.0",
		Process: p,
		Root:    &specs.Root{Path: rootfs(id)},
		Mounts:  defaultMounts(),
		Linux: &specs.Linux{
			CgroupsPath: "/agent-ctl/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
				"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

func rootfs(id string) string { return bundles + "/" + id + "/rootfs" }

func defaultMounts() []specs.Mount {
	tmpfs := func(at string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	virtual := func(at, kind string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: kind, Source: kind, Options: append([]string{"nosuid", "noexec"}, options...)}
	}
	return []specs.Mount{
		virtual("/proc", "proc", "nodev"),
		tmpfs("/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
		virtual("/dev/pts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		tmpfs("/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
		virtual("/dev/mqueue", "mqueue", "nodev"),
		virtual("/sys", "sysfs", "nodev", "ro"),
		tmpfs("/run", "nosuid", "strictatime", "mode=755", "size=65536k"),
	}
}

// readSpec reads an OCI config.json and points its root at the container's.
func readSpec(file, id string) (*specs.Spec, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("read the spec %s: %w", file, err)
	}
	if s.Process == nil || s.Linux == nil {
		return nil, fmt.Errorf("read the spec %s: it has no process or no linux part", file)
	}
	ro := s.Root != nil && s.Root.Readonly
	s.Root = &specs.Root{Path: rootfs(id), Readonly: ro}
	return &s, nil
}
