// Package signature decides whether an image may be used, by a policy.json as
// podman and skopeo read it: accept, reject, simple signing, cosign by key,
// Fulcio and Rekor.
//
// It uses the policy engine of github.com/containers/image, because these
// policies are that library's format and their meaning lies in its code. What
// is changed on the way in is what confidential guests already rely upon: keys
// named by a kbs:/// URI, and cosign requirements without an identity.
package signature

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/signature"

	"github.com/coffer-cc/coffer/imagepull/registry"
)

// Policy is a loaded policy. It does not change and is safe for concurrent use.
type Policy struct {
	policy *signature.Policy
}

// Verdict says what a policy has accepted.
type Verdict struct {
	// Index is true when the index was accepted and with it each image that it
	// lists, false when the image itself was.
	Index bool
}

// Load reads a policy. fetch returns the contents of the kbs:/// and file://
// URIs that it names keys by; they are read now and once. A policy with an
// unknown member, a member twice, no default or an empty list is an error,
// never a lenient policy.
func Load(ctx context.Context, raw []byte, fetch Fetch) (*Policy, error) {
	text, err := prepare(ctx, raw, fetch)
	if err != nil {
		return nil, fmt.Errorf("load image policy: %w", err)
	}
	p, err := signature.NewPolicyFromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("load image policy: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return &Policy{p}, nil
}

// Verify accepts img or returns the reason against it, as ErrPermissionDenied.
// The name that counts is the one that was asked for, also when a mirror
// answered. Of an image chosen from an index either may be signed: the index
// vouches for the digests in it. Both are judged by the bytes that the rest of
// the pull uses.
func (p *Policy) Verify(ctx context.Context, img *registry.Image) (Verdict, error) {
	// An engine's context serves one question at a time, so each call has its own.
	engine, err := signature.NewPolicyContext(p.policy)
	if err != nil {
		return Verdict{}, fmt.Errorf("evaluate image policy: %w", err)
	}
	defer engine.Destroy()
	var indexErr error
	if img.Index() != nil {
		// First, as signing tools sign what a tag names unless told otherwise.
		var allowed bool
		if allowed, indexErr = engine.IsRunningImageAllowed(ctx, img.Index()); allowed && indexErr == nil {
			return Verdict{Index: true}, nil
		}
	}
	allowed, err := engine.IsRunningImageAllowed(ctx, img.Instance())
	if allowed && err == nil {
		return Verdict{}, nil
	}
	return Verdict{}, refuse(ctx, img, errors.Join(indexErr, err))
}

// refuse words a refusal. Failing to reach the signatures is a refusal as well,
// though one that a retry may cure.
func refuse(ctx context.Context, img *registry.Image, err error) error {
	what := fmt.Sprintf("image %s@%s", img.Reference.Repository(), img.Digest)
	if ctx.Err() != nil {
		return fmt.Errorf("check signatures of %s: %w", what, ctx.Err())
	}
	if err = registry.Explain(err); errdefs.IsUnavailable(err) || errdefs.IsUnauthorized(err) {
		return fmt.Errorf("fetch signatures of %s: %w", what, err)
	}
	return fmt.Errorf("%s is refused by the image policy: %w: %w", what, err, errdefs.ErrPermissionDenied)
}
