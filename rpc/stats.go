package rpc

import (
	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

func cgroupStats(s *container.Stats) *agentpb.CgroupStats {
	out := &agentpb.CgroupStats{
		CpuStats: &agentpb.CpuStats{
			CpuUsage: &agentpb.CpuUsage{
				TotalUsage: s.CPU.Total, PercpuUsage: s.CPU.PerCPU,
				UsageInKernelmode: s.CPU.Kernel, UsageInUsermode: s.CPU.User,
			},
			ThrottlingData: &agentpb.ThrottlingData{
				Periods: s.CPU.Throttling.Periods, ThrottledPeriods: s.CPU.Throttling.Throttled,
				ThrottledTime: s.CPU.Throttling.Time,
			},
		},
		MemoryStats: &agentpb.MemoryStats{
			Cache: s.Memory.Cache, UseHierarchy: s.Memory.UseHierarchy, Stats: s.Memory.Stats,
			Usage: memoryData(s.Memory.Usage), SwapUsage: memoryData(s.Memory.Swap),
			KernelUsage: memoryData(s.Memory.Kernel),
		},
		PidsStats:    &agentpb.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
		BlkioStats:   blkioStats(s.BlkIO),
		HugetlbStats: make(map[string]*agentpb.HugetlbStats, len(s.Hugetlb)),
	}
	for size, h := range s.Hugetlb {
		out.HugetlbStats[size] = &agentpb.HugetlbStats{Usage: h.Usage, MaxUsage: h.MaxUsage, Failcnt: h.FailCount}
	}
	return out
}

func memoryData(d container.MemoryData) *agentpb.MemoryData {
	return &agentpb.MemoryData{Usage: d.Usage, MaxUsage: d.MaxUsage, Failcnt: d.FailCount, Limit: d.Limit}
}

func blkioStats(b container.BlkIOStats) *agentpb.BlkioStats {
	return &agentpb.BlkioStats{
		IoServiceBytesRecursive: blkioEntries(b.ServiceBytes), IoServicedRecursive: blkioEntries(b.Serviced),
		IoQueuedRecursive: blkioEntries(b.Queued), IoServiceTimeRecursive: blkioEntries(b.ServiceTime),
		IoWaitTimeRecursive: blkioEntries(b.WaitTime), IoMergedRecursive: blkioEntries(b.Merged),
		IoTimeRecursive: blkioEntries(b.Time), SectorsRecursive: blkioEntries(b.Sectors),
	}
}

func blkioEntries(es []container.BlkIOEntry) []*agentpb.BlkioStatsEntry {
	out := make([]*agentpb.BlkioStatsEntry, 0, len(es))
	for _, e := range es {
		out = append(out, &agentpb.BlkioStatsEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}
