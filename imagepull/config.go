// Package imagepull brings images into the guest: it resolves a reference,
// judges the image by policy, fetches its layers, decrypts and unpacks them,
// and mounts a root file system over them. Nothing is believed before it is
// verified: manifests and configurations by digest, images by signature, layers
// by digest, HMAC and diff id before they get their final name.
//
//	reference ─ registry ─ signature ─ decrypt (keys) ─┬─ registry (blob) ─ decrypt ─ format ─ store
//	                                                   └─ one for each layer, some at once
//	                                                      … all there: mount
package imagepull

import (
	"cmp"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull/decrypt"
	"github.com/coffer-cc/coffer/imagepull/format"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// DefaultWorkDir is where images are kept unless the configuration says
// otherwise. Storage drivers keep mounts of the host away from it.
const DefaultWorkDir = "/run/kata-containers/image"

// Config is all that a Puller needs. It comes from measured configuration.
// URIs are kbs:/// or file:///; where one stands beside a text, it counts.
// They are read at the first pull, when the key broker can be reached.
type Config struct {
	// WorkDir belongs to the Puller alone, which empties it.
	WorkDir string
	// Registry says how registries are reached. Its Dir is set here.
	Registry      registry.Config
	RegistriesURI string // a registries.conf, for Registry.RegistriesConf
	LookasideURI  string // for Registry.Lookaside
	// CredentialsURI names an auth.json. It is read again when a registry
	// answers unauthorized. Nothing of it is written to disk.
	CredentialsURI string

	Policy    []byte // policy.json
	PolicyURI string
	// RequirePolicy refuses every pull without a policy. It is set on real
	// hardware, where "accept anything" has to be written out.
	RequirePolicy bool

	// Keys opens encrypted layers and resolves kbs:/// URIs. Without it both
	// are errors.
	Keys decrypt.Keys

	Limits  format.Limits
	Layers  int           // of one image, in work at the same time; 3
	Timeout time.Duration // of a pull, whoever waits for it; 1200 s
}

func (c Config) withDefaults() (Config, error) {
	c.WorkDir = cmp.Or(c.WorkDir, DefaultWorkDir)
	c.Layers = cmp.Or(c.Layers, 3)
	c.Timeout = cmp.Or(c.Timeout, 1200*time.Second)
	c.Registry.Agent = cmp.Or(c.Registry.Agent, "coffer")
	c.Registry.Dir = filepath.Join(c.WorkDir, "private")
	if !filepath.IsAbs(c.WorkDir) || filepath.Clean(c.WorkDir) == "/" {
		return c, fmt.Errorf("work directory %q for images: %w", c.WorkDir, errdefs.ErrInvalidArgument)
	}
	if c.Layers < 0 || c.Timeout < 0 {
		return c, fmt.Errorf("negative limit for image pulls: %w", errdefs.ErrInvalidArgument)
	}
	return c, nil
}

// slots is how many layers may be in work at the same time in all pulls: at
// least one for each processor, since each needs most of one.
func (c Config) slots() int { return max(c.Layers, runtime.NumCPU()) }
