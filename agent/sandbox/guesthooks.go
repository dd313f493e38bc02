package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
)

// maxGuestHooks bounds the hooks of one kind; each costs every container time.
const maxGuestHooks = 64

// findHooks does nothing for a host that names no directory.
func (s *Sandbox) findHooks(ctx context.Context, dir string) (container.GuestHooks, error) {
	if dir == "" {
		return container.GuestHooks{}, nil
	}
	return findGuestHooks(ctx, dir)
}

func (s *Sandbox) guestHooks() container.GuestHooks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hooks
}

// findGuestHooks looks for hooks in the guest's directory dir, which has one
// directory per kind. As in the reference agent a hook is an executable regular
// file, no symlink, and its arguments are its name and the kind. A directory
// that is missing is logged and holds none: shims set one path for all images.
func findGuestHooks(ctx context.Context, dir string) (found container.GuestHooks, err error) {
	for kind, list := range map[string]*[]specs.Hook{
		"prestart": &found.Prestart, "poststart": &found.Poststart, "poststop": &found.Poststop,
	} {
		if *list, err = hooksOf(filepath.Join(dir, kind), kind); err != nil {
			return found, fmt.Errorf("guest_hook_path: %w", err)
		}
	}
	if len(found.Prestart)+len(found.Poststart)+len(found.Poststop) == 0 {
		slog.WarnContext(ctx, "no guest hooks found", "path", dir)
	}
	return found, nil
}

func hooksOf(dir, kind string) ([]specs.Hook, error) {
	entries, err := os.ReadDir(dir) // in the order of names
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var hooks []specs.Hook
	for _, e := range entries {
		if !isProgram(e) {
			continue
		}
		if len(hooks) == maxGuestHooks {
			return nil, fmt.Errorf("more than %d hooks in %s: %w", maxGuestHooks, dir, errdefs.ErrResourceExhausted)
		}
		hooks = append(hooks, specs.Hook{Path: filepath.Join(dir, e.Name()), Args: []string{e.Name(), kind}})
	}
	return hooks, nil
}

func isProgram(e os.DirEntry) bool {
	st, err := e.Info() // of a symlink itself
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
