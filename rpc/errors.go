package rpc

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// codeOf lists the classes of error that the rest of the program speaks, with
// the code that the host sees for each. The first match decides, so a class
// that a package chose on purpose stands before the errno beneath it.
var codeOf = []struct {
	class error
	code  codes.Code
}{
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrUnauthenticated, codes.Unauthenticated},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrConflict, codes.FailedPrecondition},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrOutOfRange, codes.OutOfRange},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{unix.ENOENT, codes.NotFound},
	{unix.ESRCH, codes.NotFound},
	{unix.EEXIST, codes.AlreadyExists},
	{unix.EPERM, codes.PermissionDenied},
	{unix.EACCES, codes.PermissionDenied},
	{unix.EBUSY, codes.FailedPrecondition},
	{unix.ENOSPC, codes.ResourceExhausted},
}

// maxText bounds what an error tells the host. Runtimes copy the text into
// events of the cluster, where longer ones are cut anyway.
const maxText = 4096

// Status turns an error from anywhere in the program into the code the host
// sees. It is the only place that does: packages below speak errdefs, and the
// runtime on the other side retries on Unavailable and gives up on the rest. An
// error that already is a status stays what it is; what has no class is Internal.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Internal
	for _, c := range codeOf {
		if errors.Is(err, c.class) {
			code = c.code
			break
		}
	}
	text := oneLine(err.Error())
	if len(text) > maxText {
		text = text[:maxText] + " (cut)"
	}
	// A status that is no UTF-8 cannot be encoded, and ttRPC would close the
	// whole connection over it.
	return status.Error(code, strings.ToValidUTF8(text, "\uFFFD"))
}

// oneLine keeps joined errors together: shims log lines, and an event of the
// cluster shows the first one.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }
