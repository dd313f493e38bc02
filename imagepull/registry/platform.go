package registry

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// instance chooses the image for this machine from an index: the entry for
// linux and the machine's architecture with the best variant, the first of
// equals. The order of entries is covered by the index's digest, so the choice
// depends on nothing that a registry could vary.
func instance(index *v1.Index) (v1.Descriptor, error) {
	var best *v1.Descriptor
	bestRank := 0
	for i := range index.Manifests {
		d := &index.Manifests[i]
		rank := rankOf(d.Platform)
		if rank == 0 || best != nil && rank <= bestRank {
			continue
		}
		best, bestRank = d, rank
	}
	if best == nil {
		return v1.Descriptor{}, fmt.Errorf("index has no image for linux/%s: %w", runtime.GOARCH, errdefs.ErrNotFound)
	}
	if known, nested := kindOf(best.MediaType); known && nested {
		return v1.Descriptor{}, fmt.Errorf("index within an index: %w", errdefs.ErrNotImplemented)
	}
	return *best, checkDescriptor(*best, maxManifest)
}

// rankOf grades a platform: 0 does not run here, more is better.
func rankOf(p *v1.Platform) int {
	if p == nil || p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return 0
	}
	variants := []string{"", "v1"} // what every machine of an architecture has
	if runtime.GOARCH == "arm64" {
		variants = []string{"v8", ""}
	}
	if i := slices.Index(variants, p.Variant); i >= 0 {
		return len(variants) - i
	}
	return 0
}
