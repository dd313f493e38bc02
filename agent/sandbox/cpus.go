package sandbox

import (
	"context"
	"errors"

	"github.com/coffer-cc/coffer/agent/container"
)

// RefreshCPUs lets all containers use processors that were plugged in. One that
// fails does not keep the others from theirs.
func (s *Sandbox) RefreshCPUs(ctx context.Context) error {
	s.mu.Lock()
	var all []*container.Container
	for _, e := range s.entries {
		if e.c != nil {
			all = append(all, e.c)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, c := range all {
		errs = append(errs, c.RefreshCPUs(ctx))
	}
	return errors.Join(errs...)
}
