// Package extension reads what Kata's guest extension images bring. Such an image
// is mounted by the guest's init, checked by dm-verity against a root hash of the
// kernel command line, before the agent starts. The one for confidential
// containers ships the processes whose work this agent does itself; of it only
// the pause bundle is of use.
package extension

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// CoCo is where the extension for confidential containers is mounted.
const CoCo = "/run/kata-extensions/coco"

const (
	manifestPath = "etc/kata-extensions/components.toml"
	maxManifest  = 64 << 10
	schema       = 1
	maxProcesses = 64
)

// Extension is what a mounted image says of itself.
type Extension struct {
	PauseBundle string   // absolute path
	Processes   []string // ids of what it would have started
}

// Load reads the manifest of the extension that is mounted at root. Without one
// the error is errdefs.ErrNotFound; one that is mounted and cannot be understood
// is errdefs.ErrInvalidArgument, because half of it may be what protects the pod.
func Load(root string) (Extension, error) {
	if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) {
		return Extension{}, fmt.Errorf("extension %s is not mounted: %w", root, errdefs.ErrNotFound)
	}
	f, err := os.OpenInRoot(root, manifestPath)
	if err != nil {
		return Extension{}, fmt.Errorf("extension %s: manifest: %w: %w", root, err, errdefs.ErrInvalidArgument)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return Extension{}, fmt.Errorf("extension %s: manifest: %w", root, err)
	}
	e, err := parse(text)
	if err != nil {
		return Extension{}, fmt.Errorf("extension %s: manifest: %w", root, err)
	}
	e.PauseBundle = filepath.Join(root, e.PauseBundle)
	return e, nil
}

// parse leaves the path of the bundle relative.
func parse(text []byte) (Extension, error) {
	top, err := initdata.DecodeTOML(text, maxManifest)
	if err != nil {
		return Extension{}, err
	}
	if version, ok := top["schema_version"].(int64); !ok || version != schema {
		return Extension{}, fmt.Errorf("schema_version is not %d: %w", schema, errdefs.ErrInvalidArgument)
	}
	paths, _ := top["paths"].(map[string]any)
	bundle, ok := paths["pause-bundle"].(string)
	bundle = strings.TrimLeft(strings.TrimSpace(bundle), "/")
	if !ok || !filepath.IsLocal(bundle) {
		return Extension{}, fmt.Errorf("paths.pause-bundle is no path below the extension: %w", errdefs.ErrInvalidArgument)
	}
	ids, err := processes(top["process"])
	return Extension{PauseBundle: bundle, Processes: ids}, err
}

func processes(v any) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	tables, ok := v.([]map[string]any)
	if !ok || len(tables) > maxProcesses {
		return nil, fmt.Errorf("process is no list of at most %d tables: %w", maxProcesses, errdefs.ErrInvalidArgument)
	}
	ids := make([]string, 0, len(tables))
	for i, t := range tables {
		id, ok := t["id"].(string)
		if !ok || id == "" {
			return nil, fmt.Errorf("process %d has no id: %w", i+1, errdefs.ErrInvalidArgument)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
