package tee

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// pending is a platform that is recognised but whose evidence this build
// cannot collect. The guest knows what it is and claims nothing else.
type pending evidence.Kind

// Kind names the platform.
func (p pending) Kind() evidence.Kind { return evidence.Kind(p) }

// Collect wraps errdefs.ErrNotImplemented.
func (p pending) Collect(context.Context, evidence.ReportData) (evidence.Evidence, error) {
	return evidence.Evidence{}, fmt.Errorf("collect %s evidence: %w", string(p), errdefs.ErrNotImplemented)
}
