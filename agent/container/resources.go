package container

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mergeResources returns base with what r names put over it. The kernel wants
// some limits together, memory with swap and quota with period, so an update
// that names one of a pair has to bring the other along. Neither argument is
// changed. Lists come as a whole, except that a nil list leaves the old one.
// Device rules are no part of an update; devices come with the container.
func mergeResources(base, r *specs.LinuxResources) *specs.LinuxResources {
	if base == nil {
		return r
	}
	out := *base
	out.Memory = mergeMemory(base.Memory, r.Memory)
	out.CPU = mergeCPU(base.CPU, r.CPU)
	out.Pids = choose(r.Pids, base.Pids)
	out.BlockIO = choose(r.BlockIO, base.BlockIO)
	out.Network = choose(r.Network, base.Network)
	if r.HugepageLimits != nil {
		out.HugepageLimits = r.HugepageLimits
	}
	if r.Unified != nil {
		out.Unified = maps.Clone(base.Unified)
		if out.Unified == nil {
			out.Unified = make(map[string]string)
		}
		maps.Copy(out.Unified, r.Unified)
	}
	return &out
}

func mergeMemory(base, r *specs.LinuxMemory) *specs.LinuxMemory {
	if base == nil || r == nil {
		return choose(r, base)
	}
	out := *base
	out.Limit = choose(r.Limit, base.Limit)
	out.Reservation = choose(r.Reservation, base.Reservation)
	out.Swap = choose(r.Swap, base.Swap)
	out.Swappiness = choose(r.Swappiness, base.Swappiness)
	out.DisableOOMKiller = choose(r.DisableOOMKiller, base.DisableOOMKiller)
	out.CheckBeforeUpdate = choose(r.CheckBeforeUpdate, base.CheckBeforeUpdate)
	return &out
}

func mergeCPU(base, r *specs.LinuxCPU) *specs.LinuxCPU {
	if base == nil || r == nil {
		return choose(r, base)
	}
	out := *base
	out.Shares = choose(r.Shares, base.Shares)
	out.Quota = choose(r.Quota, base.Quota)
	out.Burst = choose(r.Burst, base.Burst)
	out.Period = choose(r.Period, base.Period)
	out.RealtimeRuntime = choose(r.RealtimeRuntime, base.RealtimeRuntime)
	out.RealtimePeriod = choose(r.RealtimePeriod, base.RealtimePeriod)
	out.Idle = choose(r.Idle, base.Idle)
	if r.Cpus != "" {
		out.Cpus = r.Cpus
	}
	if r.Mems != "" {
		out.Mems = r.Mems
	}
	return &out
}

func choose[T any](first, second *T) *T {
	if first != nil {
		return first
	}
	return second
}
