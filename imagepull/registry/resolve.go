package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of a registry, resolved once: tags are not asked again,
// so that everything read later belongs to the same digest. It is safe for
// concurrent use and must be closed.
type Image struct {
	Reference   Reference
	Digest      digest.Digest // of the manifest
	IndexDigest digest.Digest // of the index that the manifest was chosen from; "" without
	Manifest    v1.Manifest

	client *Client
	source types.ImageSource
	// The same bytes for a policy, with what it needs to fetch signatures.
	index, instance *image.UnparsedImage
}

// Resolve connects to the registry, or to the first mirror that has the image,
// and reads the manifest for this machine. Its errors are those of Explain.
func (c *Client) Resolve(ctx context.Context, r Reference, auth *Auth) (*Image, error) {
	var img *Image
	err := c.retry(ctx, func(ctx context.Context) (err error) {
		img, err = c.resolve(ctx, r, auth)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w", r, err)
	}
	return img, nil
}

func (c *Client) resolve(ctx context.Context, r Reference, auth *Auth) (*Image, error) {
	sys, err := c.system(r, auth)
	if err != nil {
		return nil, err
	}
	ref, err := libraryReference(r)
	if err != nil {
		return nil, err
	}
	source, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return nil, Explain(err)
	}
	img := &Image{Reference: r, client: c, source: source}
	if err := img.read(ctx); err != nil {
		source.Close()
		return nil, err
	}
	return img, nil
}

// read fills img from the manifest and, where that is an index, from the one
// that it lists for this machine.
func (i *Image) read(ctx context.Context) error {
	i.instance = image.UnparsedInstance(i.source, nil)
	doc, d, err := manifestOf(ctx, i.instance)
	if err != nil {
		return err
	}
	i.Digest = d
	if named, ok := i.Reference.digest(); ok {
		i.Digest = named // perhaps of the other algorithm
	}
	if doc.index != nil {
		if doc, err = i.choose(ctx, doc.index); err != nil {
			return err
		}
	}
	i.Manifest = *doc.image
	return checkImage(doc.image, i.client.config.Layers)
}

// choose reads the manifest that the index lists for this machine.
func (i *Image) choose(ctx context.Context, index *v1.Index) (document, error) {
	chosen, err := instance(index)
	if err != nil {
		return document{}, err
	}
	i.index, i.IndexDigest = i.instance, i.Digest
	i.instance, i.Digest = image.UnparsedInstance(i.source, &chosen.Digest), chosen.Digest
	doc, _, err := manifestOf(ctx, i.instance)
	if err == nil && doc.image == nil {
		err = fmt.Errorf("index within an index: %w", errdefs.ErrNotImplemented)
	}
	return doc, err
}

// manifestOf reads and parses a manifest. The library compares it with the
// digest that it was asked by, when there is one.
func manifestOf(ctx context.Context, u *image.UnparsedImage) (document, digest.Digest, error) {
	raw, mediaType, err := u.Manifest(ctx)
	if err = Explain(err); err != nil {
		if errdefs.Resolve(err) == errdefs.ErrUnknown {
			// What is left is the library's comparison with the digest.
			err = fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
		}
		return document{}, "", err
	}
	doc, err := parseDocument(raw, mediaType)
	return doc, digest.FromBytes(raw), err
}

// Close drops connections. Readers of blobs must be closed before.
func (i *Image) Close() error { return i.source.Close() }

// Index returns the index for a policy, or nil when the reference named an
// image directly.
func (i *Image) Index() *image.UnparsedImage { return i.index }

// Instance returns the image for a policy.
func (i *Image) Instance() *image.UnparsedImage { return i.instance }

// Config reads the image's configuration and checks that the image runs here.
func (i *Image) Config(ctx context.Context) (v1.Image, error) {
	var config v1.Image
	err := i.client.once(ctx, func(ctx context.Context) error {
		raw, err := i.readBlob(ctx, i.Manifest.Config)
		if err != nil {
			return err
		}
		config, err = parseConfig(raw, len(i.Manifest.Layers))
		return err
	})
	if err != nil {
		return v1.Image{}, fmt.Errorf("read configuration of %s: %w", i.Reference, err)
	}
	return config, nil
}

// parseConfig reads a configuration that belongs to an image with layers layers.
func parseConfig(raw []byte, layers int) (v1.Image, error) {
	var c v1.Image
	if err := CheckJSON(raw); err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("malformed: %w", errdefs.ErrInvalidArgument)
	}
	if c.OS != "linux" || c.Architecture != runtime.GOARCH {
		return c, fmt.Errorf("image is for %.20q/%.20q, this machine is linux/%s: %w", c.OS, c.Architecture, runtime.GOARCH, errdefs.ErrInvalidArgument)
	}
	if n := len(c.RootFS.DiffIDs); n != layers || c.RootFS.Type != "layers" {
		return c, fmt.Errorf("%d diff ids for %d layers: %w", n, layers, errdefs.ErrInvalidArgument)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return c, fmt.Errorf("diff id: %w", err)
		}
	}
	return c, nil
}

// retry calls do with the client's time limit until it succeeds, fails for good
// or the attempts are used up.
func (c *Client) retry(ctx context.Context, do func(context.Context) error) error {
	wait := c.config.Backoff
	for n := 1; ; n++ {
		err := c.once(ctx, do)
		if err == nil || n == c.config.Attempts || !transient(err) {
			return err
		}
		if sleep(ctx, wait) != nil {
			return err
		}
		wait *= 2
	}
}

// once tells the caller's end from that of our own limit: only the latter means
// that the registry is slow.
func (c *Client) once(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err := do(limited)
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("registry did not answer within %s: %w", c.config.Timeout, errdefs.ErrUnavailable)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
