package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes. They are an interface to scripts: add, never renumber.
const (
	exitOK            = 0
	exitFailure       = 1
	exitUsage         = 2
	exitRefused       = 3
	exitNotFound      = 4
	exitUnreachable   = 5
	exitUnimplemented = 6
	exitMismatch      = 7
)

const exitHelp = `Exit codes:
  0  success
  1  failure
  2  the command line was wrong
  3  refused by policy, key broker, image policy or registry
  4  no such container, process, image or file
  5  the agent cannot be reached, or did not answer in time
  6  the agent does not implement the call, or a format is not known here
  7  evidence is genuine, but not as demanded
run and exec pass the exit code of the workload on; a failure of their own is
told by a line on stderr that begins with "agent-ctl:".`

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// unreachableError is a connection that could not be made.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// mismatchError is genuine evidence that does not say what it should.
type mismatchError string

func (e mismatchError) Error() string { return string(e) }

// workloadExit carries the exit code of a workload to the caller's shell.
type workloadExit int

func (e workloadExit) Error() string { return fmt.Sprintf("workload exited with %d", int(e)) }

func exitCode(err error) int {
	var (
		usage       usageError
		workload    workloadExit
		unreachable unreachableError
		op          *net.OpError
		mismatch    mismatchError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &workload):
		return int(workload)
	case errors.As(err, &mismatch):
		return exitMismatch
	case errdefs.IsNotImplemented(err):
		return exitUnimplemented
	case errors.As(err, &unreachable), errors.As(err, &op), errors.Is(err, ttrpc.ErrClosed),
		errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	case errors.Is(err, fs.ErrNotExist), errdefs.IsNotFound(err):
		return exitNotFound
	case errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err):
		return exitRefused
	}
	switch code(err) {
	case codes.PermissionDenied:
		return exitRefused
	case codes.NotFound:
		return exitNotFound
	case codes.InvalidArgument:
		// The protocol has this code for a container that is not there.
		if strings.Contains(strings.ToLower(err.Error()), "invalid container id") {
			return exitNotFound
		}
	case codes.DeadlineExceeded:
		return exitUnreachable
	case codes.Unimplemented:
		return exitUnimplemented
	}
	return exitFailure
}

// code is the wire code of an answer, or Unknown for any other error.
func code(err error) codes.Code {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Code()
	}
	return codes.Unknown
}

// callError names the method in front of the agent's answer.
type callError struct {
	method string
	err    error
}

func (e callError) Error() string {
	if st, ok := status.FromError(e.err); ok {
		return fmt.Sprintf("%s: %s (%s)", e.method, st.Message(), st.Code())
	}
	return fmt.Sprintf("%s: %v", e.method, e.err)
}

func (e callError) Unwrap() error { return e.err }

// failed is nil for nil, else the error with the method's name.
func failed(method string, err error) error {
	if err == nil {
		return nil
	}
	return callError{method, err}
}

func describe(err error) string { return printable(err.Error()) }

// printable keeps what a guest wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(s))
}
