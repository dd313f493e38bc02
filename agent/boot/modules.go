package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// modules loads what the image lists: there is no modprobe in it. The list was
// made with the image and is in load order.
func (b bootstrap) modules(ctx context.Context) error {
	if b.Modules == "" {
		return nil
	}
	text, err := os.ReadFile(b.path(b.Modules))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read list of modules: %w", err)
	}
	return loadAll(ctx, string(text), func(path string) error { return loadModule(b.path(path)) })
}

// loadAll loads each listed path. A module that is there already is fine, and
// so is one whose hardware this guest does not have: one image serves all
// platforms.
func loadAll(ctx context.Context, list string, load func(path string) error) error {
	for line := range strings.Lines(list) {
		path := strings.TrimSpace(line)
		if path == "" || strings.HasPrefix(path, "#") {
			continue
		}
		err := load(path)
		switch {
		case err == nil, errors.Is(err, unix.EEXIST):
		case errors.Is(err, unix.ENODEV):
			slog.DebugContext(ctx, "module finds no hardware", "path", path)
		default:
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") { // .ko.xz and its kind
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}
