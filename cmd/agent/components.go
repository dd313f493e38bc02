package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/extension"
)

// checkComponents refuses to stand in for parts of the reference guest that this
// program does not have: a workload that waits for their sockets would wait for
// ever, and one that finds nothing may go on unprotected.
func checkComponents(w config.Workload) error {
	switch {
	case w.Procs == "attestation-agent" || w.Procs == "confidential-data-hub":
		return fmt.Errorf("guest_components_procs: the sockets of %s are not built into this agent; it knows none and api-server-rest: %w", w.Procs, errdefs.ErrNotImplemented)
	case w.Evidence():
		return fmt.Errorf("guest_components_rest_api: %s needs evidence for containers, which is not built into this agent; it knows resource: %w", w.API, errdefs.ErrNotImplemented)
	}
	return nil
}

// adoptExtension takes the pause bundle of Kata's CoCo extension image where that
// is mounted in the directory. What the image's own file says counts more.
func (p *process) adoptExtension(ctx context.Context, root string) error {
	e, err := extension.Load(root)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.config.PauseBundle == config.Default().PauseBundle {
		p.config.PauseBundle = e.PauseBundle
	}
	slog.InfoContext(ctx, "guest extension: its pause bundle is used, its processes are not started",
		"extension", root, "bundle", p.config.PauseBundle, "processes", strings.Join(e.Processes, " "))
	return nil
}
