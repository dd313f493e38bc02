package container

import (
	"log/slog"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
)

// Stats reads each controller by itself, so that one that is missing or broken
// costs its own figures only.
func (j *jail) Stats() (*Stats, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return j.statsV2()
	}
	raw := cgroups.NewStats()
	for _, c := range []interface {
		Name() string
		GetStats(path string, stats *cgroups.Stats) error
	}{
		&fs.CpuGroup{}, &fs.CpuacctGroup{}, &fs.MemoryGroup{}, &fs.PidsGroup{}, &fs.BlkioGroup{}, &fs.HugetlbGroup{},
	} {
		dir, ok := j.paths[c.Name()]
		if !ok {
			continue
		}
		if err := c.GetStats(dir, raw); err != nil {
			slog.Debug("cgroup controller unreadable", "controller", c.Name(), "error", err)
		}
	}
	s := convertStats(raw)
	s.Memory.Swap = memoryData(raw.MemoryStats.SwapUsage)
	s.Memory.Kernel = memoryData(raw.MemoryStats.KernelUsage)
	s.BlkIO = blkIO(raw.BlkioStats)
	return s, nil
}

func (j *jail) statsV2() (*Stats, error) {
	m, err := fs2.NewManager(j.config.Cgroups, j.paths[""])
	if err != nil {
		return nil, err
	}
	raw, err := m.GetStats() // an error comes with the controllers that could be read
	if err != nil {
		slog.Debug("cgroup controllers unreadable", "error", err)
	}
	s := convertStats(raw)
	s.Memory.Swap = memoryData(raw.MemoryStats.SwapOnlyUsage)
	s.BlkIO = blkIOv2(raw.BlkioStats)
	return s, nil
}

func convertStats(raw *cgroups.Stats) *Stats {
	cpu, throttling := raw.CpuStats.CpuUsage, raw.CpuStats.ThrottlingData
	s := &Stats{
		CPU: CPUStats{
			Total: cpu.TotalUsage, Kernel: cpu.UsageInKernelmode, User: cpu.UsageInUsermode,
			PerCPU: cpu.PercpuUsage,
			Throttling: Throttling{
				Periods:   throttling.Periods,
				Throttled: throttling.ThrottledPeriods,
				Time:      throttling.ThrottledTime,
			},
		},
		Memory: MemoryStats{
			Cache:        raw.MemoryStats.Cache,
			Usage:        memoryData(raw.MemoryStats.Usage),
			UseHierarchy: raw.MemoryStats.UseHierarchy,
			Stats:        raw.MemoryStats.Stats,
		},
		Pids:    PidsStats{Current: raw.PidsStats.Current, Limit: raw.PidsStats.Limit},
		Hugetlb: make(map[string]HugetlbStats, len(raw.HugetlbStats)),
	}
	for size, h := range raw.HugetlbStats {
		s.Hugetlb[size] = HugetlbStats{Usage: h.Usage, MaxUsage: h.MaxUsage, FailCount: h.Failcnt}
	}
	return s
}

func memoryData(d cgroups.MemoryData) MemoryData {
	return MemoryData{Usage: d.Usage, MaxUsage: d.MaxUsage, FailCount: d.Failcnt, Limit: d.Limit}
}

func blkIO(b cgroups.BlkioStats) BlkIOStats {
	return BlkIOStats{
		ServiceBytes: entries(b.IoServiceBytesRecursive),
		Serviced:     entries(b.IoServicedRecursive),
		Queued:       entries(b.IoQueuedRecursive),
		ServiceTime:  entries(b.IoServiceTimeRecursive),
		WaitTime:     entries(b.IoWaitTimeRecursive),
		Merged:       entries(b.IoMergedRecursive),
		Time:         entries(b.IoTimeRecursive),
		Sectors:      entries(b.SectorsRecursive),
	}
}

// blkIOv2 puts both counters of io.stat into one list, where the host's
// runtime looks for them: bytes as read and write, operations as rios and wios.
func blkIOv2(b cgroups.BlkioStats) BlkIOStats {
	all := entries(b.IoServiceBytesRecursive)
	for _, e := range entries(b.IoServicedRecursive) {
		e.Op = e.Op[:1] + "ios"
		all = append(all, e)
	}
	return BlkIOStats{ServiceBytes: all}
}

func entries(in []cgroups.BlkioStatEntry) []BlkIOEntry {
	var out []BlkIOEntry
	for _, e := range in {
		out = append(out, BlkIOEntry{Major: e.Major, Minor: e.Minor, Op: strings.ToLower(e.Op), Value: e.Value})
	}
	return out
}
