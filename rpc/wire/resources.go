package wire

import (
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Resources turns the limits of an UpdateContainerRequest into the OCI ones.
// Nil stays nil and means that nothing is to change.
func Resources(m *agentpb.LinuxResources) (*specs.LinuxResources, error) {
	return resourcesSpec("resources", m)
}

func resourcesSpec(path string, m *agentpb.LinuxResources) (r *specs.LinuxResources, err error) {
	if m == nil {
		return nil, nil
	}
	r = &specs.LinuxResources{
		HugepageLimits: mapSlice(m.HugepageLimits, hugepageSpec),
		Network:        networkSpec(m.Network),
	}
	// Present with 0 is "not set", as everywhere; -1 lifts the limit.
	if m.Pids != nil && m.Pids.Limit != 0 {
		r.Pids = &specs.LinuxPids{Limit: ptr(m.Pids.Limit)}
	}
	if r.Devices, err = tryMapSlice(path+".Devices", m.Devices, deviceRuleSpec); err != nil {
		return nil, err
	}
	if r.Memory, err = memorySpec(path+".Memory", m.Memory); err != nil {
		return nil, err
	}
	if r.CPU, err = cpuSpec(path+".CPU", m.CPU); err != nil {
		return nil, err
	}
	if r.BlockIO, err = blockIOSpec(path+".BlockIO", m.BlockIO); err != nil {
		return nil, err
	}
	return r, nil
}

// deviceRuleSpec reads -1 as "every number" and 0 as the number it is. The kind
// "a" covers every device; numbers mean nothing with it.
func deviceRuleSpec(path string, m *agentpb.LinuxDeviceCgroup) (d specs.LinuxDeviceCgroup, err error) {
	d = specs.LinuxDeviceCgroup{Allow: m.Allow, Type: m.Type, Access: m.Access}
	switch m.Type {
	case "", "a":
		d.Type = "a"
		return d, nil
	case "b", "c":
	default:
		return d, invalid(path+".Type", "unknown kind of device %.32q", m.Type)
	}
	if m.Major < -1 || m.Minor < -1 {
		return d, invalid(path, "device number below -1")
	}
	if m.Major >= 0 {
		d.Major = ptr(m.Major)
	}
	if m.Minor >= 0 {
		d.Minor = ptr(m.Minor)
	}
	return d, nil
}

func memorySpec(path string, m *agentpb.LinuxMemory) (*specs.LinuxMemory, error) {
	if m == nil {
		return nil, nil
	}
	if min(m.Limit, m.Reservation, m.Swap, m.Kernel, m.KernelTCP) < -1 {
		return nil, invalid(path, "limit below -1")
	}
	return &specs.LinuxMemory{
		Limit:            set(m.Limit),
		Reservation:      set(m.Reservation),
		Swap:             set(m.Swap),
		Kernel:           set(m.Kernel),
		KernelTCP:        set(m.KernelTCP),
		Swappiness:       set(m.Swappiness),
		DisableOOMKiller: set(m.DisableOOMKiller),
	}, nil
}

func cpuSpec(path string, m *agentpb.LinuxCPU) (*specs.LinuxCPU, error) {
	if m == nil {
		return nil, nil
	}
	if min(m.Quota, m.RealtimeRuntime) < -1 {
		return nil, invalid(path, "quota below -1")
	}
	return &specs.LinuxCPU{
		Shares:          set(m.Shares),
		Quota:           set(m.Quota),
		Period:          set(m.Period),
		RealtimeRuntime: set(m.RealtimeRuntime),
		RealtimePeriod:  set(m.RealtimePeriod),
		Cpus:            m.Cpus,
		Mems:            m.Mems,
	}, nil
}

func blockIOSpec(path string, m *agentpb.LinuxBlockIO) (*specs.LinuxBlockIO, error) {
	if m == nil {
		return nil, nil
	}
	weights, err := tryMapSlice(path+".WeightDevice", m.WeightDevice, weightDeviceSpec)
	if err != nil {
		return nil, err
	}
	if max(m.Weight, m.LeafWeight) > math.MaxUint16 {
		return nil, invalid(path, "weight above %d", math.MaxUint16)
	}
	return &specs.LinuxBlockIO{
		Weight:                  set(uint16(m.Weight)),
		LeafWeight:              set(uint16(m.LeafWeight)),
		WeightDevice:            weights,
		ThrottleReadBpsDevice:   mapSlice(m.ThrottleReadBpsDevice, throttleSpec),
		ThrottleWriteBpsDevice:  mapSlice(m.ThrottleWriteBpsDevice, throttleSpec),
		ThrottleReadIOPSDevice:  mapSlice(m.ThrottleReadIOPSDevice, throttleSpec),
		ThrottleWriteIOPSDevice: mapSlice(m.ThrottleWriteIOPSDevice, throttleSpec),
	}, nil
}

func weightDeviceSpec(path string, m *agentpb.LinuxWeightDevice) (d specs.LinuxWeightDevice, err error) {
	if max(m.Weight, m.LeafWeight) > math.MaxUint16 {
		return d, invalid(path, "weight above %d", math.MaxUint16)
	}
	d.Major, d.Minor = m.Major, m.Minor
	d.Weight, d.LeafWeight = set(uint16(m.Weight)), set(uint16(m.LeafWeight))
	return d, nil
}

func throttleSpec(m *agentpb.LinuxThrottleDevice) (d specs.LinuxThrottleDevice) {
	d.Major, d.Minor, d.Rate = m.Major, m.Minor, m.Rate
	return d
}

func hugepageSpec(m *agentpb.LinuxHugepageLimit) specs.LinuxHugepageLimit {
	return specs.LinuxHugepageLimit{Pagesize: m.Pagesize, Limit: m.Limit}
}

func networkSpec(m *agentpb.LinuxNetwork) *specs.LinuxNetwork {
	if m == nil {
		return nil
	}
	return &specs.LinuxNetwork{
		ClassID: set(m.ClassID),
		Priorities: mapSlice(m.Priorities, func(p *agentpb.LinuxInterfacePriority) specs.LinuxInterfacePriority {
			return specs.LinuxInterfacePriority{Name: p.Name, Priority: p.Priority}
		}),
	}
}
