package format

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	maxName = 4096
	maxPart = 255
)

// bad is an error about an entry of the archive.
func bad(name, format string, args ...any) error {
	return fmt.Errorf("entry %.200q "+format+": %w", append(append([]any{name}, args...), errdefs.ErrInvalidArgument)...)
}

// clean turns the name of an entry into a path below the layer's top: "." or
// parts joined by single slashes. Names that climb are refused and not
// interpreted: what they mean would depend on the reader.
func clean(name string, depth int) (string, error) {
	if name == "" || len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return "", bad(name, "has a malformed name")
	}
	parts := make([]string, 0, 8)
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return "", bad(name, "climbs out of its directory")
		case len(part) > maxPart:
			return "", bad(name, "has a part of %d bytes", len(part))
		}
		parts = append(parts, part)
	}
	if len(parts) > depth {
		return "", bad(name, "is %d levels deep", len(parts))
	}
	if len(parts) == 0 {
		return ".", nil
	}
	return strings.Join(parts, "/"), nil
}

// split returns directory and last part of a clean path.
func split(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ".", path
	}
	return path[:i], path[i+1:]
}

// Names by which layers mark deletions (image-spec, layer.md).
const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
)

// marker classifies a clean path: a file, the deletion of target in the same
// directory, the mark of an opaque directory, or something to skip.
type marker int

const (
	ordinary marker = iota
	deletion
	opaque
	skipped
)

func markerOf(path string) (m marker, target string, err error) {
	if !strings.Contains(path, whPrefix) {
		return ordinary, "", nil
	}
	dir, base := split(path)
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, whMeta) {
			return skipped, "", nil // the books of an old union file system
		}
		if strings.HasPrefix(part, whPrefix) {
			return 0, "", bad(path, "lies in something deleted")
		}
	}
	switch {
	case base == whOpaque:
		return opaque, "", nil
	case strings.HasPrefix(base, whMeta):
		return skipped, "", nil
	case !strings.HasPrefix(base, whPrefix):
		return ordinary, "", nil
	}
	target = base[len(whPrefix):]
	if target == "" || target == "." || target == ".." {
		return 0, "", bad(path, "deletes nothing")
	}
	return deletion, target, nil
}
