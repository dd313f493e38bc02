package rpc

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Why a confidential guest does not do some things for its host. Policies are
// written by people who may not think of them, so no policy allows them.
const (
	clockOfHost = "the host does not set the clock that certificates are judged by"
	swapOfHost  = "swap would put its memory on a disk that the host reads"
	rulesOfHost = "packet filters could lead what containers ask of the guest itself to the host"
)

// plainOnly makes a handler that refuses in a confidential guest. Elsewhere the
// policy alone decides.
func plainOnly[R, A any](s *Server, why string, h func(context.Context, R) (A, error)) func(context.Context, R) (A, error) {
	return func(ctx context.Context, r R) (A, error) {
		if s.deps.Confidential {
			var none A
			return none, notHere(why)
		}
		return h(ctx, r)
	}
}

func notHere(why string) error {
	return fmt.Errorf("this guest is confidential: %s: %w", why, errdefs.ErrPermissionDenied)
}
