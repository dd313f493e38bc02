package guest

import "strings"

// The names of items as dashboards for Kata know them, in the order of the
// kernel's columns (proc_stat(5), proc_pid_net(5), proc_diskstats(5)).

func cpuItems() []string {
	return strings.Fields("user nice system idle iowait irq softirq steal guest guest_nice")
}

func netdevItems() []string {
	return strings.Fields("recv_bytes recv_packets recv_errs recv_drop recv_fifo recv_frame recv_compressed recv_multicast " +
		"sent_bytes sent_packets sent_errs sent_drop sent_fifo sent_colls sent_carrier sent_compressed")
}

func diskItems() []string {
	return strings.Fields("reads merged sectors_read time_reading writes writes_merged sectors_written time_writing " +
		"in_progress time_in_progress weighted_time_in_progress " +
		"discards discards_merged sectors_discarded time_discarding flushes time_flushing")
}

// memItems maps the kernel's names in /proc/meminfo; what is not listed is not
// exported.
func memItems() map[string]string {
	return map[string]string{
		"MemTotal": "mem_total", "MemFree": "mem_free", "MemAvailable": "mem_available",
		"Buffers": "buffers", "Cached": "cached", "SwapCached": "swap_cached",
		"Active": "active", "Inactive": "inactive",
		"Active(anon)": "active_anon", "Inactive(anon)": "inactive_anon",
		"Active(file)": "active_file", "Inactive(file)": "inactive_file",
		"Unevictable": "unevictable", "Mlocked": "mlocked",
		"HighTotal": "high_total", "HighFree": "high_free", "LowTotal": "low_total", "LowFree": "low_free",
		"MmapCopy": "mmap_copy", "SwapTotal": "swap_total", "SwapFree": "swap_free",
		"Dirty": "dirty", "Writeback": "writeback", "AnonPages": "anon_pages", "Mapped": "mapped",
		"Shmem": "shmem", "Slab": "slab", "SReclaimable": "s_reclaimable", "SUnreclaim": "s_unreclaim",
		"KReclaimable": "k_reclaimable", "KernelStack": "kernel_stack", "PageTables": "page_tables",
		"Quicklists": "quicklists", "NFS_Unstable": "nfs_unstable", "Bounce": "bounce",
		"WritebackTmp": "writeback_tmp", "CommitLimit": "commit_limit", "Committed_AS": "committed_as",
		"VmallocTotal": "vmalloc_total", "VmallocUsed": "vmalloc_used", "VmallocChunk": "vmalloc_chunk",
		"Percpu": "per_cpu", "HardwareCorrupted": "hardware_corrupted",
		"AnonHugePages": "anon_hugepages", "ShmemHugePages": "shmem_hugepages", "ShmemPmdMapped": "shmem_pmd_mapped",
		"CmaTotal": "cma_total", "CmaFree": "cma_free",
		"HugePages_Total": "hugepages_total", "HugePages_Free": "hugepages_free",
		"HugePages_Rsvd": "hugepages_rsvd", "HugePages_Surp": "hugepages_surp",
		"Hugepagesize": "hugepagesize", "Hugetlb": "hugetlb",
		"DirectMap4k": "direct_map_4k", "DirectMap4M": "direct_map_4M",
		"DirectMap2M": "direct_map_2M", "DirectMap1G": "direct_map_1G",
	}
}
