package guest

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
)

// confine refuses a symlink that could lead out of the root. Containers mount
// what lies directly in the root, so there is none there. Elsewhere a target
// goes up first, no further than the root, and then only down: what it meets on
// the way down may be another symlink, for which the same holds.
func confine(place mount.Place, target string) error {
	depth := strings.Count(place.Rel(), "/")
	switch {
	case depth == 0:
		return fmt.Errorf("path: containers mount from here, so nothing may point elsewhere: %w", errdefs.ErrPermissionDenied)
	case path.IsAbs(target):
		return fmt.Errorf("data: the target of a symlink must be relative: %w", errdefs.ErrPermissionDenied)
	}
	down := false
	for name := range strings.SplitSeq(target, "/") {
		switch {
		case name == "" || name == ".":
		case name != "..":
			down = true
		case down || depth == 0:
			return fmt.Errorf("data: the target of a symlink leads out of its directory: %w", errdefs.ErrPermissionDenied)
		default:
			depth--
		}
	}
	return nil
}
