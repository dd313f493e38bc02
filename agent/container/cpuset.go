package container

import (
	"context"
	"fmt"
)

// CPURefresher is the further ability of a Jail that keeps its processes to
// some processors.
type CPURefresher interface {
	// RefreshCPUs applies cpus, a list as in cpuset(7), once more, because
	// processors were plugged in. Empty means all.
	RefreshCPUs(cpus string) error
}

// RefreshCPUs lets the container use what of its processors was plugged in since
// it was created or updated.
func (c *Container) RefreshCPUs(ctx context.Context) error {
	r, ok := c.jail.(CPURefresher)
	if !ok {
		return nil
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if c.isDestroyed() {
		return nil
	}
	cpus := ""
	if res := c.Spec().Linux.Resources; res != nil && res.CPU != nil {
		cpus = res.CPU.Cpus
	}
	if err := r.RefreshCPUs(cpus); err != nil {
		return fmt.Errorf("refresh processors of %s: %w", c.id, err)
	}
	return nil
}
