package container

import (
	"log/slog"
	"slices"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limitable returns r without what this guest cannot limit. Kubernetes sends a
// limit, mostly of zero, for each size of the host's huge pages, and libcontainer
// refuses the container for one that the guest does not have. Nobody can use
// pages of such a size; where the kernel has no controller for huge pages at all,
// the volume that they come from bounds them.
func limitable(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil || len(r.HugepageLimits) == 0 {
		return r
	}
	out, sizes := *r, limitableSizes()
	out.HugepageLimits = slices.DeleteFunc(slices.Clone(r.HugepageLimits), func(l specs.LinuxHugepageLimit) bool {
		drop := !slices.Contains(sizes, l.Pagesize)
		if drop && l.Limit > 0 {
			slog.Warn("no limit for huge pages of this size in this guest", "size", l.Pagesize)
		}
		return drop
	})
	return &out
}

// limitableSizes are the sizes of huge pages that a cgroup can limit here.
func limitableSizes() []string {
	if cgroups.IsCgroup2UnifiedMode() {
		controllers, err := cgroups.GetAllSubsystems()
		if err != nil || !slices.Contains(controllers, "hugetlb") {
			return nil
		}
	} else if _, err := cgroups.FindCgroupMountpoint("", "hugetlb"); err != nil {
		return nil
	}
	return cgroups.HugePageSizes()
}
