package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
)

// Limits of a resolver file. Kubernetes allows a list of search domains 2048
// bytes, and a host's own file may be mostly comments.
const (
	maxDNSLines = 256
	maxDNSLine  = 4096
)

// DNSFiles are the two files of SetDNS: Written receives the lines, Guest is
// the resolver file of the guest's own root that it is bound over.
type DNSFiles struct {
	Written string
	Guest   string
}

// DefaultDNSFiles are the paths that policies and the host know.
func DefaultDNSFiles() DNSFiles {
	return DNSFiles{Written: ocispec.ResolvConf, Guest: "/etc/resolv.conf"}
}

// SetDNS makes the lines, which are whole lines of a resolv.conf, the guest's
// resolver configuration: image pulls and attestation use it. Containers get
// theirs through their own mounts. No lines means no change. Asking again
// rewrites the file that is already bound. Where the guest's root has no
// resolver file one is created to bind over; where that is impossible, as on a
// read-only root, the configuration is skipped with a warning.
func SetDNS(ctx context.Context, f DNSFiles, lines []string) error {
	text, err := resolverText(lines)
	if err != nil || text == "" {
		return err
	}
	if err := ensureGuestFile(f.Guest); errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) {
		slog.WarnContext(ctx, "no resolver file to bind over", "path", f.Guest)
		return nil
	} else if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Written), 0o755); err != nil {
		return fmt.Errorf("make directory of resolver file: %w", err)
	}
	// Written in place, not renamed into place: the bind mount of an earlier
	// call shows this inode.
	if err := os.WriteFile(f.Written, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write resolver file: %w", err)
	}
	if bound, err := sameFile(f.Written, f.Guest); err != nil || bound {
		return err
	}
	return mount.Do(mount.Request{Source: f.Written, Options: mount.Options{Flags: unix.MS_BIND}}, f.Guest)
}

// resolverText joins the lines without a final newline. The host splits its own
// file at newlines, so the last element is usually empty.
func resolverText(lines []string) (string, error) {
	if len(lines) > maxDNSLines {
		return "", fmt.Errorf("dns: more than %d lines: %w", maxDNSLines, errdefs.ErrInvalidArgument)
	}
	var kept []string
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if len(l) > maxDNSLine || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' && r != '\t' }) {
			return "", fmt.Errorf("dns: not a line of a resolver file: %w", errdefs.ErrInvalidArgument)
		}
		kept = append(kept, l)
	}
	return strings.TrimSpace(strings.Join(kept, "\n")), nil
}

func ensureGuestFile(path string) error {
	st, err := os.Stat(path)
	if err == nil {
		if st.IsDir() {
			return fmt.Errorf("%s is a directory: %w", path, errdefs.ErrFailedPrecondition)
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("find resolver file: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("create resolver file: %w", err)
	}
	return file.Close()
}

func sameFile(a, b string) (bool, error) {
	sa, err := os.Stat(a)
	if err != nil {
		return false, fmt.Errorf("look at resolver file: %w", err)
	}
	sb, err := os.Stat(b)
	if err != nil {
		return false, fmt.Errorf("look at resolver file: %w", err)
	}
	return os.SameFile(sa, sb), nil
}
