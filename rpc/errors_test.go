package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the host sees for each class, written out a second time: a change of the
// table is a change of the protocol.
var seen = map[error]codes.Code{
	errdefs.ErrInvalidArgument:    codes.InvalidArgument,
	errdefs.ErrNotFound:           codes.NotFound,
	errdefs.ErrAlreadyExists:      codes.AlreadyExists,
	errdefs.ErrPermissionDenied:   codes.PermissionDenied,
	errdefs.ErrUnauthenticated:    codes.Unauthenticated,
	errdefs.ErrResourceExhausted:  codes.ResourceExhausted,
	errdefs.ErrFailedPrecondition: codes.FailedPrecondition,
	errdefs.ErrConflict:           codes.FailedPrecondition,
	errdefs.ErrAborted:            codes.Aborted,
	errdefs.ErrOutOfRange:         codes.OutOfRange,
	errdefs.ErrNotImplemented:     codes.Unimplemented,
	errdefs.ErrUnavailable:        codes.Unavailable,
	errdefs.ErrDataLoss:           codes.DataLoss,
	context.Canceled:              codes.Canceled,
	context.DeadlineExceeded:      codes.DeadlineExceeded,
	unix.ENOENT:                   codes.NotFound,
	unix.ESRCH:                    codes.NotFound,
	unix.EEXIST:                   codes.AlreadyExists,
	unix.EPERM:                    codes.PermissionDenied,
	unix.EACCES:                   codes.PermissionDenied,
	unix.EBUSY:                    codes.FailedPrecondition,
	unix.ENOSPC:                   codes.ResourceExhausted,
}

func TestStatusOfEveryClass(t *testing.T) {
	for _, c := range codeOf {
		want, known := seen[c.class]
		if !known {
			t.Errorf("%v has no line in this test", c.class)
			continue
		}
		for name, err := range map[string]error{
			"bare":    c.class,
			"wrapped": fmt.Errorf("do a thing: %w", fmt.Errorf("deeper: %w", c.class)),
			"joined":  errors.Join(errors.New("other"), c.class),
		} {
			if got := status.Code(Status(err)); got != want {
				t.Errorf("%v, %s: %v, want %v", c.class, name, got, want)
			}
		}
	}
	if len(codeOf) != len(seen) {
		t.Errorf("%d classes, %d are tested", len(codeOf), len(seen))
	}
}

func TestStatus(t *testing.T) {
	kept := status.Error(codes.DataLoss, "as it was")
	for name, c := range map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"none":                       {nil, codes.OK, ""},
		"no class":                   {errors.New("odd"), codes.Internal, "odd"},
		"a status stays":             {kept, codes.DataLoss, "as it was"},
		"a class before its errno":   {fmt.Errorf("x: %w: %w", unix.ENOENT, errdefs.ErrInvalidArgument), codes.InvalidArgument, "x: no such file or directory: invalid argument"},
		"the text keeps the context": {fmt.Errorf("open device: %w", unix.ENOENT), codes.NotFound, "open device: no such file or directory"},
		"joined in one line":         {errors.Join(errors.New("one"), unix.ENOENT), codes.NotFound, "one; no such file or directory"},
		"as long as allowed":         {errors.New(strings.Repeat("x", maxText)), codes.Internal, strings.Repeat("x", maxText)},
		"cut":                        {errors.New(strings.Repeat("x", maxText+1)), codes.Internal, strings.Repeat("x", maxText) + " (cut)"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := status.FromError(Status(c.err))
			if got.Code() != c.code || got.Message() != c.text {
				t.Errorf("%v %q, want %v %q", got.Code(), got.Message(), c.code, c.text)
			}
		})
	}
}

// Protobuf refuses strings that are no UTF-8, and a reply that cannot be
// written ends the connection, with all that is in flight on it.
func TestStatusIsText(t *testing.T) {
	for name, err := range map[string]error{
		"cut inside of a letter": errors.New(strings.Repeat("x", maxText-1) + "…"),
		"never was text":         errors.New("file \xff\xfe"),
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := status.FromError(Status(err))
			if m := got.Message(); !utf8.ValidString(m) {
				t.Errorf("%q is no text", m[max(0, len(m)-16):])
			}
		})
	}
}
