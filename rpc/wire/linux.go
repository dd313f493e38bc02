package wire

import (
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// linuxSpec leaves out IntelRdt: the guest has no say over the host's caches.
func linuxSpec(path string, m *agentpb.Linux) (l *specs.Linux, err error) {
	l = &specs.Linux{
		UIDMappings:       mapSlice(m.UIDMappings, idMappingSpec),
		GIDMappings:       mapSlice(m.GIDMappings, idMappingSpec),
		Sysctl:            copyMap(m.Sysctl),
		CgroupsPath:       m.CgroupsPath,
		RootfsPropagation: m.RootfsPropagation,
		MaskedPaths:       slices.Clone(m.MaskedPaths),
		ReadonlyPaths:     slices.Clone(m.ReadonlyPaths),
		MountLabel:        m.MountLabel,
	}
	if slices.Contains(strings.Split(m.CgroupsPath, "/"), "..") {
		return nil, invalid(path+".CgroupsPath", `must not contain ".."`)
	}
	if !knownPropagation(m.RootfsPropagation) {
		return nil, invalid(path+".RootfsPropagation", "unknown mode %.32q", m.RootfsPropagation)
	}
	if l.Namespaces, err = tryMapSlice(path+".Namespaces", m.Namespaces, namespaceSpec); err != nil {
		return nil, err
	}
	if l.Devices, err = tryMapSlice(path+".Devices", m.Devices, deviceSpec); err != nil {
		return nil, err
	}
	if l.Resources, err = resourcesSpec(path+".Resources", m.Resources); err != nil {
		return nil, err
	}
	if l.Seccomp, err = seccompSpec(path+".Seccomp", m.Seccomp); err != nil {
		return nil, err
	}
	return l, nil
}

func idMappingSpec(m *agentpb.LinuxIDMapping) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
}

func knownPropagation(mode string) bool {
	switch mode {
	case "", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable":
		return true
	}
	return false
}

func namespaceSpec(path string, m *agentpb.LinuxNamespace) (ns specs.LinuxNamespace, err error) {
	switch t := specs.LinuxNamespaceType(m.Type); t {
	case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		return specs.LinuxNamespace{Type: t, Path: m.Path}, nil
	}
	return ns, invalid(path+".Type", "unknown namespace %.32q", m.Type)
}

func deviceSpec(path string, m *agentpb.LinuxDevice) (d specs.LinuxDevice, err error) {
	switch m.Type {
	case "b", "c", "u", "p":
	default:
		return d, invalid(path+".Type", "unknown kind of device %.32q", m.Type)
	}
	mode := os.FileMode(m.FileMode & 0o7777)
	if mode == 0 {
		mode = 0o666
	}
	return specs.LinuxDevice{
		Path:     m.Path,
		Type:     m.Type,
		Major:    m.Major,
		Minor:    m.Minor,
		FileMode: &mode,
		UID:      ptr(m.UID),
		GID:      ptr(m.GID),
	}, nil
}
