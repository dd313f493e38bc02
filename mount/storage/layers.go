package storage

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/crypt"
)

// layeredDriver is the driver of a root file system that arrives as several
// storages, one for each layer.
const layeredDriver = "erofs.multi-layer"

// Marks that shims put among the mount options of a layer.
const (
	markPrefix    = "X-kata."
	markLayer     = "X-kata.multi-layer"
	markUpper     = "X-kata.overlay-upper"
	markLower     = "X-kata.overlay-lower"
	markGPT       = "X-kata.gpt-partitioned"
	markPartition = "X-kata.partition-number"
	markMkdir     = "X-kata.mkdir.path"
	markVerity    = "X-kata.dmverity-enabled"
	verityPrefix  = "X-kata.dmverity."
)

// maxLayerStorages bounds one root file system. Images have up to 127 layers.
const maxLayerStorages = 130

// gather puts the storages that are layers of one root file system together, in
// the place of the first of them.
func gather(ss []Storage) ([]Storage, error) {
	var layers, out []Storage
	at := -1
	for _, s := range ss {
		if !isLayer(s) {
			out = append(out, s)
			continue
		}
		if at < 0 {
			at = len(out)
			out = append(out, Storage{})
		}
		layers = append(layers, s)
	}
	if at < 0 {
		return ss, nil
	}
	if len(layers) > maxLayerStorages {
		return nil, fmt.Errorf("%d layers are more than %d: %w", len(layers), maxLayerStorages, errdefs.ErrInvalidArgument)
	}
	l, err := parseLayers(layers)
	if err != nil {
		return nil, err
	}
	out[at] = Storage{Driver: layeredDriver, FSType: "overlay", MountPoint: l.target, layers: layers}
	return out, nil
}

func isLayer(s Storage) bool {
	return s.Driver == layeredDriver || slices.Contains(mount.SplitOptions(s.Options), markLayer+"=true")
}

// layers is a checked group of storages.
type layers struct {
	target string
	upper  *layer  // nil for a directory in the guest's memory
	lower  []layer // topmost first
	mkdir  []string
}

// layer is one checked storage of a group.
type layer struct {
	Storage // Options without the marks
	upper   bool
	part    int           // partition number; 0 for the whole disk
	verity  *crypt.Verity // nil for a layer that nothing vouches for
	mkdir   []string
}

// parseLayers sorts the storages of a group.
func parseLayers(ss []Storage) (*layers, error) {
	l := new(layers)
	for _, s := range ss {
		one, err := parseLayer(s)
		switch {
		case err != nil:
			return nil, fmt.Errorf("layer from %q: %w", clip(s.Source), err)
		case !one.upper:
			l.lower = append(l.lower, one)
		case l.upper != nil:
			return nil, fmt.Errorf("two upper layers: %w", errdefs.ErrInvalidArgument)
		default:
			l.upper = &one
		}
		l.mkdir = append(l.mkdir, one.mkdir...)
	}
	if len(l.lower) == 0 {
		return nil, fmt.Errorf("no lower layer: %w", errdefs.ErrInvalidArgument)
	}
	if slices.ContainsFunc(l.lower, func(o layer) bool { return o.part > 0 }) {
		// The lower the number, the higher the layer; what is no partition is lowest.
		slices.SortStableFunc(l.lower, func(a, b layer) int { return cmp.Compare(uint(a.part)-1, uint(b.part)-1) })
	}
	l.target = l.lower[0].MountPoint
	if l.upper != nil {
		l.target = l.upper.MountPoint
	}
	return l, nil
}

// parseLayer reads the marks of one storage. Each is known or refused: they
// decide what is verified.
func parseLayer(s Storage) (layer, error) {
	if s.FSGroup != nil || s.Shared || len(s.DriverOptions) > 0 {
		return layer{}, fmt.Errorf("it takes no driver options and no group, and is not shared: %w", errdefs.ErrInvalidArgument)
	}
	l := layer{Storage: s, upper: s.FSType == "ext4"}
	l.Options = nil
	var marks, verity []string
	for _, w := range mount.SplitOptions(s.Options) {
		switch {
		case strings.HasPrefix(w, verityPrefix):
			verity = append(verity, w)
		case strings.HasPrefix(w, markPrefix):
			marks = append(marks, w)
		default:
			l.Options = append(l.Options, w)
		}
	}
	enabled, err := l.marks(marks)
	if err != nil {
		return layer{}, err
	}
	if enabled != (len(verity) > 0) {
		return layer{}, fmt.Errorf("mount options %s=true and %s* go together: %w", markVerity, verityPrefix, errdefs.ErrInvalidArgument)
	}
	if enabled {
		v, err := crypt.ParseVerity(verityPrefix, verity)
		if err != nil {
			return layer{}, err
		}
		l.verity = &v
	}
	return l, l.check()
}

// marks reads all marks but those of dm-verity, and tells whether that is on.
func (l *layer) marks(words []string) (verity bool, err error) {
	gpt := false
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case w == markLayer+"=true":
		case w == markUpper:
			l.upper = true
		case w == markLower:
			l.upper = false
		case w == markGPT+"=true":
			gpt = true
		case w == markVerity+"=true":
			verity = true
		case key == markPartition:
			if l.part, err = strconv.Atoi(value); err != nil || l.part < 1 {
				return false, fmt.Errorf("mount option %.80q has no number: %w", w, errdefs.ErrInvalidArgument)
			}
		case key == markMkdir && value != "":
			dir, _, _ := strings.Cut(value, ":")
			l.mkdir = append(l.mkdir, dir)
		default:
			return false, fmt.Errorf("mount option %.80q is unknown: %w", w, errdefs.ErrInvalidArgument)
		}
	}
	if gpt != (l.part > 0) {
		return false, fmt.Errorf("mount options %s=true and %s=N go together: %w", markGPT, markPartition, errdefs.ErrInvalidArgument)
	}
	return verity, nil
}

// check holds a layer against its role.
func (l *layer) check() error {
	switch {
	case l.upper && l.FSType != "ext4":
		return fmt.Errorf("an upper layer is ext4, not %q: %w", l.FSType, errdefs.ErrInvalidArgument)
	case l.upper && l.verity != nil:
		return fmt.Errorf("an upper layer is written, so dm-verity cannot vouch for it: %w", errdefs.ErrInvalidArgument)
	case !l.upper && l.FSType != "erofs":
		return fmt.Errorf("a lower layer is erofs, not %q: %w", l.FSType, errdefs.ErrInvalidArgument)
	case l.Driver != "blk" && l.Driver != "scsi":
		return fmt.Errorf("driver %q has no layers: %w", clip(l.Driver), errdefs.ErrInvalidArgument)
	}
	return nil
}

// mkdirPlace resolves a directory to make: below the upper layer's mount,
// "{{ mount 0 }}", or the first lower layer's, "{{ mount 1 }}".
func mkdirPlace(spec, upper, lower string) (mount.Place, error) {
	root, rest := upper, spec
	if r, ok := strings.CutPrefix(spec, "{{ mount 0 }}"); ok {
		rest = r
	} else if r, ok := strings.CutPrefix(spec, "{{ mount 1 }}"); ok {
		root, rest = lower, r
	}
	if strings.Contains(rest, "{{") || slices.Contains(strings.Split(rest, "/"), "..") {
		return mount.Place{}, fmt.Errorf("mount option %s=%.80q: %w", markMkdir, spec, errdefs.ErrInvalidArgument)
	}
	p, err := mount.At(root, path.Join(root, rest))
	if err != nil {
		return p, fmt.Errorf("mount option %s=%.80q: %w", markMkdir, spec, err)
	}
	return p, nil
}
