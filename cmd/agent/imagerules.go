package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
)

// imageRule is the policy's rule about pulled images. Policies made for other
// agents have none, and are not asked. docs/policy.md describes it.
const imageRule = "VerifiedImage"

// imageRules lets the policy judge an image that was pulled. CreateContainer is
// judged before, when there is only the host's word for what will be pulled.
type imageRules struct {
	engine *policy.Rego
	ledger *ledger
}

// Judge implements sandbox.ImageRules. What is allowed is recorded before a
// container is made of it.
func (r imageRules) Judge(ctx context.Context, f sandbox.ImageFacts) error {
	d, err := r.engine.AllowUnlessRuled(ctx, imageRule, func() ([]byte, error) { return json.Marshal(imageInputOf(f)) })
	if err != nil {
		return err
	}
	if !d.Allowed {
		return fmt.Errorf("image %s with digest %s: %s: %w",
			f.Image.Reference, f.Image.ManifestDigest, d.Denial(imageRule), errdefs.ErrPermissionDenied)
	}
	return r.ledger.pulled(ctx, f)
}

// imageInput is what the rule sees. All members are there at all times; lists
// may be empty and are never null, as in the inputs of requests. The process is
// spelled as in CreateContainerRequest and the configuration as in the image.
type imageInput struct {
	ContainerID string       `json:"container_id"`
	Image       imageFacts   `json:"image"`
	Process     imageProcess `json:"process"`
}

type imageFacts struct {
	Reference      string      `json:"reference"`
	ManifestDigest string      `json:"manifest_digest"`
	IndexDigest    string      `json:"index_digest"`
	Config         imageConfig `json:"config"`
}

type imageConfig struct {
	User, WorkingDir     string
	Env, Entrypoint, Cmd []string
	Labels               map[string]string
}

type imageProcess struct {
	Args, Env []string
	Cwd       string
	User      imageUser
}

type imageUser struct {
	UID, GID       uint32
	AdditionalGids []uint32
}

func imageInputOf(f sandbox.ImageFacts) imageInput {
	c, p := f.Image.Config.Config, f.Process
	labels := map[string]string{}
	for k, v := range c.Labels {
		labels[k] = v
	}
	return imageInput{
		ContainerID: f.ContainerID,
		Image: imageFacts{
			Reference: f.Image.Reference, ManifestDigest: f.Image.ManifestDigest, IndexDigest: f.Image.IndexDigest,
			Config: imageConfig{
				User: c.User, WorkingDir: c.WorkingDir, Labels: labels,
				Env: list(c.Env), Entrypoint: list(c.Entrypoint), Cmd: list(c.Cmd),
			},
		},
		Process: imageProcess{
			Args: list(p.Args), Env: list(p.Env), Cwd: p.Cwd,
			User: imageUser{p.User.UID, p.User.GID, list(p.User.AdditionalGids)},
		},
	}
}

// list is never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
