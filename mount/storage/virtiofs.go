package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// virtioFS mounts the directory that the host shares under the tag in source. In
// a confidential guest it refuses: each look at such a directory asks the host
// anew, so nothing that was checked there holds.
type virtioFS struct {
	ground
	confidential bool
}

// sharedTag is the tag of the share that an image may mount by itself before
// the agent is asked to.
const sharedTag = "kataShared"

// Attach implements Handler.
func (v virtioFS) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	if v.confidential {
		return nil, fmt.Errorf("this guest is confidential: it shares no directory with the host: %w", errdefs.ErrPermissionDenied)
	}
	if err := oneOf(s, "virtiofs"); err != nil {
		return nil, err
	}
	if s.Source == "" || strings.ContainsAny(s.Source, "/\x00") {
		return nil, fmt.Errorf("tag %.80q of a shared directory: %w", s.Source, errdefs.ErrInvalidArgument)
	}
	o, err := options(s, unix.MS_NODEV)
	if err != nil {
		return nil, err
	}
	p, err := v.place(s)
	if err != nil {
		return nil, err
	}
	if there, err := alreadyShared(p, s); err != nil || there {
		return adopted{mounted{place: p}}, err
	}
	return attachVolume(attach(ctx, p, s, func() error {
		return p.Mount(mount.Request{Source: s.Source, FSType: "virtiofs", Options: o})
	}))
}

// alreadyShared reports whether the share is mounted there without us.
func alreadyShared(p mount.Place, s Storage) (bool, error) {
	if s.Source != sharedTag {
		return false, nil
	}
	if on, err := p.Mounted(); err != nil || !on {
		return false, err
	}
	dir, err := p.Open()
	if err != nil {
		return false, err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return false, fmt.Errorf("look at %q: %w", p, err)
	}
	return st.Type == unix.FUSE_SUPER_MAGIC, nil
}

// adopted is a mount that somebody else made and keeps.
type adopted struct{ mounted }

// Detach implements Volume.
func (adopted) Detach(context.Context) error { return nil }

// attachVolume turns a result of attach into that of Attach: a Volume that is
// nil, rather than holds nothing, next to an error.
func attachVolume(m mounted, err error) (Volume, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
