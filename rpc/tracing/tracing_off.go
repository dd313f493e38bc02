//go:build !tracing

package tracing

import (
	"context"
	"log/slog"

	"github.com/containerd/ttrpc"
)

// Tracer is not in this build; only nil is used.
type Tracer struct{}

// Start says in the log that there are no spans, and returns nil.
func Start(ctx context.Context, _ Dial) (*Tracer, error) {
	slog.WarnContext(ctx, "tracing was asked for and is not built into this agent")
	return nil, nil
}

// Interceptor is nil, which a ttRPC server takes for none.
func (*Tracer) Interceptor() ttrpc.UnaryServerInterceptor { return nil }

// Stop does nothing.
func (*Tracer) Stop(context.Context) {}
