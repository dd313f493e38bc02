package container

// Stats is what a container uses, in the shape the runtime on the host expects.
// A controller that cannot be read leaves its part zero.
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	BlkIO   BlkIOStats
	Hugetlb map[string]HugetlbStats // by page size as the kernel spells it: 2MB
}

// CPUStats counts nanoseconds. PerCPU is empty under cgroup v2.
type CPUStats struct {
	Total, Kernel, User uint64
	PerCPU              []uint64
	Throttling          Throttling
}

// Throttling counts scheduling periods, and nanoseconds in Time.
type Throttling struct {
	Periods, Throttled, Time uint64
}

// MemoryStats counts bytes. Stats is memory.stat word for word.
type MemoryStats struct {
	Cache               uint64
	Usage, Swap, Kernel MemoryData
	UseHierarchy        bool
	Stats               map[string]uint64
}

// MemoryData is one kind of memory. Under cgroup v2 MaxUsage needs
// memory.peak, which old kernels lack, and Kernel is zero.
type MemoryData struct {
	Usage, MaxUsage, FailCount, Limit uint64
}

// PidsStats counts processes; a Limit of 0 is none.
type PidsStats struct {
	Current, Limit uint64
}

// BlkIOStats holds one entry per device and operation. Under cgroup v2 only
// ServiceBytes is filled.
type BlkIOStats struct {
	ServiceBytes, Serviced, Queued, ServiceTime []BlkIOEntry
	WaitTime, Merged, Time, Sectors             []BlkIOEntry
}

// BlkIOEntry is one counter of one device. Op is in lower case: read, write,
// sync, async, total; under cgroup v2 rbytes becomes read and so on.
type BlkIOEntry struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// HugetlbStats counts bytes.
type HugetlbStats struct {
	Usage, MaxUsage, FailCount uint64
}
