package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
)

const (
	terminationLogPath = "io.kubernetes.container.terminationMessagePath"
	maxTerminationLog  = 4096
)

// TerminationLog returns what a container wrote to its termination log, at most
// 4096 bytes of it, made valid UTF-8. The spec tells where: an annotation names
// the path inside the container, and the mount there has the guest's file as
// its source. A file that does not exist is an empty log.
//
// The host wrote the spec, so the source must be a regular file below shared,
// reached without a symlink: otherwise this would hand any file of the guest to
// the host.
func TerminationLog(spec *specs.Spec, shared string) (string, error) {
	path := spec.Annotations[terminationLogPath]
	if path == "" {
		return "", fmt.Errorf("termination log: no annotation %s: %w", terminationLogPath, errdefs.ErrFailedPrecondition)
	}
	m := ocispec.MountAt(spec, path)
	if m == nil {
		return "", fmt.Errorf("termination log: nothing is mounted on its path: %w", errdefs.ErrFailedPrecondition)
	}
	place, err := mount.At(shared, m.Source)
	if err != nil {
		return "", fmt.Errorf("termination log: %w", err)
	}
	text, err := readHead(place, maxTerminationLog)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("termination log: %w", err)
	}
	return strings.ToValidUTF8(string(text), "\uFFFD"), nil
}

// readHead reads the first bytes of a regular file. The type is looked at before
// the file is opened for reading, since opening a device can have effects.
func readHead(place mount.Place, limit int64) ([]byte, error) {
	at, err := place.Open()
	if err != nil {
		return nil, err
	}
	defer at.Close()
	st, err := at.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file: %w", place, errdefs.ErrFailedPrecondition)
	}
	f, err := os.Open(mount.FDPath(at))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
