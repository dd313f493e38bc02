package guest

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Volumes answers for file systems that were mounted for the pod.
type Volumes struct {
	Mounts VolumeFinder
}

// VolumeFinder knows what is mounted; *storage.Manager satisfies it.
type VolumeFinder interface {
	// Visit calls f with the root directory of the storage at path, opened for
	// reading, and keeps the storage there until f returns.
	Visit(ctx context.Context, path string, f func(root *os.File) error) error
}

// Usage counts bytes or inodes. Available includes what the file system keeps
// for root, so that Total is Used and Available together.
type Usage struct {
	Total, Used, Available uint64
}

// VolumeStats is how full a volume is.
type VolumeStats struct {
	Bytes, Inodes Usage
}

// Stats looks at the volume mounted at path.
func (v Volumes) Stats(ctx context.Context, path string) (VolumeStats, error) {
	var out VolumeStats
	err := v.Mounts.Visit(ctx, path, func(root *os.File) error {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
			return fmt.Errorf("read statistics: %w", err)
		}
		size := uint64(st.Bsize)
		out.Bytes = usage(st.Blocks*size, st.Bfree*size)
		out.Inodes = usage(st.Files, st.Ffree)
		return nil
	})
	if err != nil {
		return VolumeStats{}, fmt.Errorf("volume_guest_path: %w", err)
	}
	return out, nil
}

func usage(total, free uint64) Usage {
	free = min(free, total)
	return Usage{Total: total, Used: total - free, Available: free}
}
