package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	// cdi is the reference implementation of the Container Device Interface;
	// it reads the descriptions and edits specs as container engines do.
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

const (
	// CDIDir is where programs of the guest describe its devices.
	CDIDir = "/var/run/cdi"
	// cdiPoll is how often the descriptions are read while one is missing.
	cdiPoll = 250 * time.Millisecond
	// maxCDIDevices bounds what one container may ask for.
	maxCDIDevices = 256
)

// CDI gives containers devices that the guest itself describes: what nodes,
// mounts, variables and hooks belong to each. Only the names come from outside.
type CDI struct {
	Dir     string        // CDIDir when empty
	Timeout time.Duration // for a description to appear
	Visible bool          // the container's own variable counts
}

var errCDITimeout = errors.New("CDI timeout")

// Inject adds the devices that annotations of the kind cdi.k8s.io/… name, and
// those of the variable VISIBLE_CDI_DEVICES where that counts. It waits for a
// kind of which there is no description yet, since a driver's daemon may still
// be writing it; an unknown device of a known kind is ErrNotFound at once. The
// pod's own container gets none. When it fails the spec must not be used.
func (c CDI) Inject(ctx context.Context, spec *specs.Spec) error {
	if spec.Annotations["io.katacontainers.pkg.oci.container_type"] == "pod_sandbox" {
		return nil
	}
	wanted, err := c.wanted(spec)
	if err != nil || len(wanted) == 0 {
		return err
	}
	dir := c.Dir
	if dir == "" {
		dir = CDIDir
	}
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(dir))
	if err != nil {
		return fmt.Errorf("CDI: %w", err)
	}
	if err := c.await(ctx, cache, wanted); err != nil {
		return err
	}
	if _, err := cache.InjectDevices(spec, wanted...); err != nil {
		return fmt.Errorf("CDI: %w: %w", errdefs.ErrFailedPrecondition, err)
	}
	slog.InfoContext(ctx, "CDI devices injected", "devices", wanted)
	return nil
}

// wanted lists qualified names, each once, in an order that does not change
// from one create to the next.
func (c CDI) wanted(spec *specs.Spec) ([]string, error) {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(spec.Annotations)) {
		if !strings.HasPrefix(key, cdi.AnnotationPrefix) {
			continue
		}
		for _, name := range strings.Split(spec.Annotations[key], ",") {
			if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
				return nil, fmt.Errorf("annotation %.200q: %w: %w", key, errdefs.ErrInvalidArgument, err)
			}
			all = append(all, name)
		}
	}
	if c.Visible {
		visible, err := visibleDevices(spec.Process.Env)
		if err != nil {
			return nil, err
		}
		all = append(all, visible...)
	}
	if len(all) > maxCDIDevices {
		return nil, fmt.Errorf("more than %d CDI devices: %w", maxCDIDevices, errdefs.ErrInvalidArgument)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	}), nil
}

// await returns when all of wanted are described. The first look is what
// NewCache has read.
func (c CDI) await(ctx context.Context, cache *cdi.Cache, wanted []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errCDITimeout)
	defer cancel()
	tick := time.NewTicker(cdiPoll)
	defer tick.Stop()
	var broken error
	for {
		known := cache.ListDevices()
		missing, err := missingDevices(known, wanted)
		if err != nil || len(missing) == 0 {
			return err
		}
		select {
		case <-tick.C:
			broken = cache.Refresh() // a description that is half written, perhaps
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errCDITimeout) {
				return fmt.Errorf("wait for CDI devices: %w", err)
			}
			return errors.Join(fmt.Errorf("wait for CDI devices %q: nothing after %v, there is %.20q: %w", missing, c.Timeout, known, errdefs.ErrUnavailable), broken)
		}
	}
}

// missingDevices are those of wanted that are not known. One whose kind is known
// will not come any more.
func missingDevices(known, wanted []string) (missing []string, err error) {
	kind := func(name string) string { k, _, _ := strings.Cut(name, "="); return k }
	for _, w := range wanted {
		if slices.Contains(known, w) {
			continue
		}
		if slices.ContainsFunc(known, func(k string) bool { return kind(k) == kind(w) }) {
			return nil, fmt.Errorf("CDI device %.200q: the guest has others of its kind only: %w", w, errdefs.ErrNotFound)
		}
		missing = append(missing, w)
	}
	return missing, nil
}
