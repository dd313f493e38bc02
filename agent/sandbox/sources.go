package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// checkSources sees to it, in a confidential guest, that the sources of bind
// mounts are what a policy reads in them. One that is reached over a symlink
// could be any directory of the guest: disks and files of the host hold what
// the host likes, and libcontainer follows. It comes before the guest adds mounts
// of its own.
func (b *build) checkSources(context.Context) error {
	if !b.s.deps.Confidential {
		return nil
	}
	for i, m := range b.r.Spec.Mounts {
		if !isBind(m) {
			continue
		}
		if err := b.checkSource(m.Source); err != nil {
			return fmt.Errorf("OCI.Mounts[%d].source: %w", i, err)
		}
	}
	return nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func (b *build) checkSource(source string) error {
	if clean := path.Clean(source); !path.IsAbs(source) || clean != source && clean+"/" != source {
		return fmt.Errorf("%.200q is no absolute path in its plain form: %w", source, errdefs.ErrInvalidArgument)
	}
	run := filepath.Clean(b.s.deps.Run)
	if !strings.HasPrefix(source, run+"/") || path.Clean(source) == run {
		return nil // the guest's own, where nobody else makes links
	}
	place, err := mount.At(run, source)
	if err != nil {
		return err
	}
	f, err := place.Open()
	if errors.Is(err, unix.ENOENT) {
		return nil // libcontainer says so
	}
	if err != nil {
		return err
	}
	return f.Close()
}
