package container

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	// Without this import libcontainer silently applies no device rules.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// config translates the spec into libcontainer's own terms, with what is the
// driver's to decide: where the cgroup is, and what the guest's kernel is like.
func (d *Libcontainer) config(id string, spec *specs.Spec) (*configs.Config, error) {
	linux := *spec.Linux
	if err := checkLabels(spec.Process.SelinuxLabel, linux.MountLabel); err != nil {
		return nil, err
	}
	cgroupsPath, systemd, err := cgroupPath(id, linux.CgroupsPath, d.opts.Systemd)
	if err != nil {
		return nil, err
	}
	linux.CgroupsPath = cgroupsPath
	if cgroups.IsCgroup2UnifiedMode() {
		linux.Namespaces = withCgroupNamespace(linux.Namespaces)
	}
	if linux.Sysctl, err = applySharedSysctls(linux.Sysctl, linux.Namespaces); err != nil {
		return nil, err
	}
	linux.Resources = limitable(linux.Resources)
	edited := *spec
	edited.Linux = &linux
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       id,
		UseSystemdCgroup: systemd,
		NoPivotRoot:      d.opts.NoPivotRoot,
		Spec:             &edited,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	for i, label := range config.Labels {
		if strings.HasPrefix(label, "bundle=") { // it took the working directory for that
			config.Labels[i] = "bundle=" + bundleOf(spec)
		}
	}
	if config.OomScoreAdj == nil {
		// Inherited, the agent's own score would shield the container.
		config.OomScoreAdj = new(int)
	}
	return config, nil
}

// checkLabels refuses SELinux labels where nothing would enforce them. What the
// kernel says by itself depends on which it meets first.
func checkLabels(labels ...string) error {
	if strings.Join(labels, "") == "" {
		return nil
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return fmt.Errorf("SELinux label, but this guest's kernel runs without SELinux: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// cgroupPath decides the container's cgroup. The host writes paths in systemd's
// form whether or not a systemd is there; without one the colons become
// slashes. The root of the hierarchy is refused, because killing "everything
// in the container's cgroup" would kill the guest.
func cgroupPath(id, given string, systemd bool) (cgroup string, bySystemd bool, err error) {
	if systemd && strings.Count(given, ":") == 2 && !strings.Contains(given, "/") {
		return given, true, nil
	}
	if given == "" {
		given = id
	}
	cgroup = path.Clean("/" + strings.ReplaceAll(given, ":", "/"))
	if cgroup == "/" {
		return "", false, fmt.Errorf("cgroupsPath %q is the root: %w", given, errdefs.ErrInvalidArgument)
	}
	return cgroup, false, nil
}

// withCgroupNamespace adds a private cgroup namespace. Under cgroup v2 a
// container without one sees, and with a writable mount changes, the guest's
// whole hierarchy.
func withCgroupNamespace(ns []specs.LinuxNamespace) []specs.LinuxNamespace {
	if slices.ContainsFunc(ns, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
		return ns
	}
	return append(slices.Clone(ns), specs.LinuxNamespace{Type: specs.CgroupNamespace})
}

// applySharedSysctls sets net.* itself when the container has no network
// namespace in its spec, and returns the others. libcontainer refuses net.* of
// a namespace it takes for the host's; in this guest it is the pod's own, and
// containerd asks for two of them in every pod.
func applySharedSysctls(all map[string]string, ns []specs.LinuxNamespace) (map[string]string, error) {
	for _, n := range ns {
		if n.Type == specs.NetworkNamespace {
			return all, nil
		}
	}
	rest := make(map[string]string, len(all))
	for key, value := range all {
		name, isNet := netSysctl(key)
		if !isNet {
			rest[key] = value
			continue
		}
		if err := writeNetSysctl(name, value); err != nil {
			return nil, fmt.Errorf("set sysctl %s: %w", key, err)
		}
	}
	return rest, nil
}

// netSysctl returns the file below /proc/sys/net that key means. As sysctl(8)
// says, the first separator tells which of the two ways it is written.
func netSysctl(key string) (name string, ok bool) {
	if rest, ok := strings.CutPrefix(key, "net/"); ok {
		return rest, true
	}
	rest, ok := strings.CutPrefix(key, "net.")
	swap := strings.NewReplacer(".", "/", "/", ".")
	return swap.Replace(rest), ok
}

func writeNetSysctl(name, value string) error {
	root, err := os.OpenRoot("/proc/sys/net")
	if err != nil {
		return err
	}
	defer root.Close() // the root keeps a name with .. from leaving /proc/sys/net
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
	if os.IsNotExist(err) {
		return nil // a knob this kernel lacks
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// process translates p. What an exec leaves out it inherits from the
// container, as far as that restricts or is needed: the wire cannot tell an
// absent value from a zero one.
func (j *jail) process(p *specs.Process, init bool) (*libcontainer.Process, error) {
	if len(p.Args) == 0 {
		return nil, fmt.Errorf("process args are empty: %w", errdefs.ErrInvalidArgument)
	}
	cwd := p.Cwd
	if cwd == "" {
		cwd = "/"
	}
	if !path.IsAbs(cwd) {
		return nil, fmt.Errorf("process cwd %q is not absolute: %w", cwd, errdefs.ErrInvalidArgument)
	}
	if err := checkLabels(p.SelinuxLabel); err != nil {
		return nil, err
	}
	limits := p.Rlimits
	if len(limits) == 0 {
		limits = j.init.Rlimits
	}
	rlimits, err := convertRlimits(limits)
	if err != nil {
		return nil, err
	}
	noNewPrivileges := p.NoNewPrivileges || j.init.NoNewPrivileges
	lp := &libcontainer.Process{
		Args:            p.Args,
		Env:             assignments(p.Env),
		UID:             int(p.User.UID),
		GID:             int(p.User.GID),
		Cwd:             cwd,
		Capabilities:    convertCapabilities(p.Capabilities, init),
		Label:           p.SelinuxLabel,
		NoNewPrivileges: &noNewPrivileges,
		Rlimits:         rlimits,
		Init:            init,
	}
	for _, gid := range p.User.AdditionalGids {
		lp.AdditionalGroups = append(lp.AdditionalGroups, int(gid))
	}
	if size := p.ConsoleSize; size != nil {
		lp.ConsoleWidth, lp.ConsoleHeight = uint16(size.Width), uint16(size.Height)
	}
	return lp, nil
}

// assignments drops entries without a name or an equals sign. Images carry
// them, no shell can set them, and libcontainer refuses the container for them.
func assignments(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.IndexByte(kv, '=') <= 0
	})
}

// convertCapabilities returns nil for an exec without capabilities, which
// makes libcontainer use the container's; an init without has none.
func convertCapabilities(c *specs.LinuxCapabilities, init bool) *configs.Capabilities {
	if c == nil && !init {
		return nil
	}
	if c == nil {
		return &configs.Capabilities{}
	}
	return &configs.Capabilities{
		Bounding:    c.Bounding,
		Effective:   c.Effective,
		Inheritable: c.Inheritable,
		Permitted:   c.Permitted,
		Ambient:     c.Ambient,
	}
}

// rlimitNames is ordered by the numbers of asm-generic/resource.h.
func rlimitNames() []string {
	return []string{
		unix.RLIMIT_CPU: "RLIMIT_CPU", unix.RLIMIT_FSIZE: "RLIMIT_FSIZE",
		unix.RLIMIT_DATA: "RLIMIT_DATA", unix.RLIMIT_STACK: "RLIMIT_STACK",
		unix.RLIMIT_CORE: "RLIMIT_CORE", unix.RLIMIT_RSS: "RLIMIT_RSS",
		unix.RLIMIT_NPROC: "RLIMIT_NPROC", unix.RLIMIT_NOFILE: "RLIMIT_NOFILE",
		unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK", unix.RLIMIT_AS: "RLIMIT_AS",
		unix.RLIMIT_LOCKS: "RLIMIT_LOCKS", unix.RLIMIT_SIGPENDING: "RLIMIT_SIGPENDING",
		unix.RLIMIT_MSGQUEUE: "RLIMIT_MSGQUEUE", unix.RLIMIT_NICE: "RLIMIT_NICE",
		unix.RLIMIT_RTPRIO: "RLIMIT_RTPRIO", unix.RLIMIT_RTTIME: "RLIMIT_RTTIME",
	}
}

func convertRlimits(all []specs.POSIXRlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, r := range all {
		n := slices.Index(rlimitNames(), r.Type)
		if n < 0 {
			return nil, fmt.Errorf("rlimit type %q is unknown: %w", r.Type, errdefs.ErrInvalidArgument)
		}
		out = append(out, configs.Rlimit{Type: n, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}
