package guest

import (
	"context"
	"log/slog"
	"os"

	"github.com/coffer-cc/coffer/mount"
)

// RefreshShares looks at every mount below dir, so that a virtio-fs mount whose
// source the host has taken away drops what it still holds of it. Nothing that
// is found there is an error: the shim asks after each container, also where no
// directory is shared at all, and takes a failure for a failed stop.
func RefreshShares(ctx context.Context, dir string) {
	entries, err := mount.Table(dir)
	if err != nil {
		slog.WarnContext(ctx, "mount table not read", "error", err)
		return
	}
	for _, e := range entries {
		if _, err := os.Stat(e.Target); err != nil {
			slog.DebugContext(ctx, "stale mount", "path", e.Target, "error", err)
		}
	}
}
