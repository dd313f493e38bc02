package wire

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func linuxMessage(l *specs.Linux) *agentpb.Linux {
	if l == nil {
		return nil
	}
	return &agentpb.Linux{
		UIDMappings:       mapSlice(l.UIDMappings, idMappingMessage),
		GIDMappings:       mapSlice(l.GIDMappings, idMappingMessage),
		Sysctl:            copyMap(l.Sysctl),
		Resources:         ResourcesMessage(l.Resources),
		CgroupsPath:       l.CgroupsPath,
		Devices:           mapSlice(l.Devices, deviceMessage),
		Seccomp:           seccompMessage(l.Seccomp),
		RootfsPropagation: l.RootfsPropagation,
		MaskedPaths:       slices.Clone(l.MaskedPaths),
		ReadonlyPaths:     slices.Clone(l.ReadonlyPaths),
		MountLabel:        l.MountLabel,
		Namespaces: mapSlice(l.Namespaces, func(n specs.LinuxNamespace) *agentpb.LinuxNamespace {
			return &agentpb.LinuxNamespace{Type: string(n.Type), Path: n.Path}
		}),
	}
}

func idMappingMessage(m specs.LinuxIDMapping) *agentpb.LinuxIDMapping {
	return &agentpb.LinuxIDMapping{HostID: m.HostID, ContainerID: m.ContainerID, Size: m.Size}
}

func deviceMessage(d specs.LinuxDevice) *agentpb.LinuxDevice {
	return &agentpb.LinuxDevice{
		Path:     d.Path,
		Type:     d.Type,
		Major:    d.Major,
		Minor:    d.Minor,
		FileMode: uint32(get(d.FileMode)),
		UID:      get(d.UID),
		GID:      get(d.GID),
	}
}

// ResourcesMessage is the reverse of Resources.
func ResourcesMessage(r *specs.LinuxResources) *agentpb.LinuxResources {
	if r == nil {
		return nil
	}
	m := &agentpb.LinuxResources{
		Devices: mapSlice(r.Devices, deviceRuleMessage),
		BlockIO: blockIOMessage(r.BlockIO),
		HugepageLimits: mapSlice(r.HugepageLimits, func(h specs.LinuxHugepageLimit) *agentpb.LinuxHugepageLimit {
			return &agentpb.LinuxHugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit}
		}),
	}
	if r.Memory != nil {
		m.Memory = memoryMessage(r.Memory)
	}
	if r.CPU != nil {
		m.CPU = cpuMessage(r.CPU)
	}
	if r.Pids != nil {
		m.Pids = &agentpb.LinuxPids{Limit: get(r.Pids.Limit)}
	}
	if n := r.Network; n != nil {
		m.Network = &agentpb.LinuxNetwork{
			ClassID: get(n.ClassID),
			Priorities: mapSlice(n.Priorities, func(p specs.LinuxInterfacePriority) *agentpb.LinuxInterfacePriority {
				return &agentpb.LinuxInterfacePriority{Name: p.Name, Priority: p.Priority}
			}),
		}
	}
	return m
}

func deviceRuleMessage(d specs.LinuxDeviceCgroup) *agentpb.LinuxDeviceCgroup {
	m := &agentpb.LinuxDeviceCgroup{Allow: d.Allow, Type: d.Type, Major: -1, Minor: -1, Access: d.Access}
	if d.Major != nil {
		m.Major = *d.Major
	}
	if d.Minor != nil {
		m.Minor = *d.Minor
	}
	return m
}

func memoryMessage(r *specs.LinuxMemory) *agentpb.LinuxMemory {
	return &agentpb.LinuxMemory{
		Limit:            get(r.Limit),
		Reservation:      get(r.Reservation),
		Swap:             get(r.Swap),
		Kernel:           get(r.Kernel),
		KernelTCP:        get(r.KernelTCP),
		Swappiness:       get(r.Swappiness),
		DisableOOMKiller: get(r.DisableOOMKiller),
	}
}

func cpuMessage(r *specs.LinuxCPU) *agentpb.LinuxCPU {
	return &agentpb.LinuxCPU{
		Shares:          get(r.Shares),
		Quota:           get(r.Quota),
		Period:          get(r.Period),
		RealtimeRuntime: get(r.RealtimeRuntime),
		RealtimePeriod:  get(r.RealtimePeriod),
		Cpus:            r.Cpus,
		Mems:            r.Mems,
	}
}

func blockIOMessage(r *specs.LinuxBlockIO) *agentpb.LinuxBlockIO {
	if r == nil {
		return nil
	}
	return &agentpb.LinuxBlockIO{
		Weight:     uint32(get(r.Weight)),
		LeafWeight: uint32(get(r.LeafWeight)),
		WeightDevice: mapSlice(r.WeightDevice, func(d specs.LinuxWeightDevice) *agentpb.LinuxWeightDevice {
			return &agentpb.LinuxWeightDevice{
				Major: d.Major, Minor: d.Minor,
				Weight: uint32(get(d.Weight)), LeafWeight: uint32(get(d.LeafWeight)),
			}
		}),
		ThrottleReadBpsDevice:   mapSlice(r.ThrottleReadBpsDevice, throttleMessage),
		ThrottleWriteBpsDevice:  mapSlice(r.ThrottleWriteBpsDevice, throttleMessage),
		ThrottleReadIOPSDevice:  mapSlice(r.ThrottleReadIOPSDevice, throttleMessage),
		ThrottleWriteIOPSDevice: mapSlice(r.ThrottleWriteIOPSDevice, throttleMessage),
	}
}

func throttleMessage(d specs.LinuxThrottleDevice) *agentpb.LinuxThrottleDevice {
	return &agentpb.LinuxThrottleDevice{Major: d.Major, Minor: d.Minor, Rate: d.Rate}
}

func seccompMessage(s *specs.LinuxSeccomp) *agentpb.LinuxSeccomp {
	if s == nil {
		return nil
	}
	return &agentpb.LinuxSeccomp{
		DefaultAction: string(s.DefaultAction),
		Architectures: mapSlice(s.Architectures, func(a specs.Arch) string { return string(a) }),
		Flags:         mapSlice(s.Flags, func(f specs.LinuxSeccompFlag) string { return string(f) }),
		Syscalls:      mapSlice(s.Syscalls, syscallMessage),
	}
}

func syscallMessage(c specs.LinuxSyscall) *agentpb.LinuxSyscall {
	m := &agentpb.LinuxSyscall{
		Names:  slices.Clone(c.Names),
		Action: string(c.Action),
		Args: mapSlice(c.Args, func(a specs.LinuxSeccompArg) *agentpb.LinuxSeccompArg {
			return &agentpb.LinuxSeccompArg{
				Index: uint64(a.Index), Value: a.Value, ValueTwo: a.ValueTwo, Op: string(a.Op),
			}
		}),
	}
	if c.ErrnoRet != nil {
		m.ErrnoRet = &agentpb.LinuxSyscall_Errnoret{Errnoret: uint32(*c.ErrnoRet)}
	}
	return m
}
