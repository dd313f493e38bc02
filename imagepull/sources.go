package imagepull

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/signature"
)

// maxSource bounds a document that configuration names by URI.
const maxSource = 4 << 20

// sources are the parts that are read at the first pull and then stay.
type sources struct {
	client *registry.Client
	policy *signature.Policy // nil accepts every image
}

// open returns the sources. Whatever cannot be read fails the pull and is tried
// again by the next: without a policy that is configured nothing is pulled.
func (p *Puller) open(ctx context.Context) (*sources, error) {
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.sources != nil {
		return p.sources, nil
	}
	policy, err := p.loadPolicy(ctx)
	if err != nil {
		return nil, err
	}
	c := p.config.Registry
	if c.RegistriesConf, err = p.text(ctx, p.config.RegistriesURI, c.RegistriesConf); err != nil {
		return nil, fmt.Errorf("read registries configuration: %w", err)
	}
	if c.Lookaside, err = p.text(ctx, p.config.LookasideURI, c.Lookaside); err != nil {
		return nil, fmt.Errorf("read signature store configuration: %w", err)
	}
	client, err := registry.New(c)
	if err != nil {
		return nil, err
	}
	p.sources = &sources{client, policy}
	return p.sources, nil
}

func (p *Puller) loadPolicy(ctx context.Context) (*signature.Policy, error) {
	raw, err := p.text(ctx, p.config.PolicyURI, p.config.Policy)
	if err != nil {
		return nil, fmt.Errorf("read image policy: %w", err)
	}
	if len(raw) > 0 {
		return signature.Load(ctx, raw, p.fetch)
	}
	if p.config.RequirePolicy {
		return nil, fmt.Errorf("no image policy: initdata or the guest image's file must set image.image_security_policy: %w", errdefs.ErrFailedPrecondition)
	}
	slog.WarnContext(ctx, "no image policy, every image is accepted")
	return nil, nil
}

// text returns what uri names, or the text when there is none.
func (p *Puller) text(ctx context.Context, uri string, text []byte) ([]byte, error) {
	if uri == "" {
		return text, nil
	}
	raw, err := p.fetch(ctx, uri)
	if err == nil && len(raw) == 0 {
		err = fmt.Errorf("%s is empty: %w", uri, errdefs.ErrInvalidArgument)
	}
	return raw, err
}

// fetch reads a resource of the key broker or a file of the guest image.
func (p *Puller) fetch(ctx context.Context, uri string) ([]byte, error) {
	if path, ok := strings.CutPrefix(uri, "file://"); ok {
		return readFile(path)
	}
	u, err := resource.Parse(uri)
	if err != nil {
		return nil, err
	}
	if p.config.Keys == nil {
		return nil, fmt.Errorf("get %s: no key broker is configured: %w", u, errdefs.ErrFailedPrecondition)
	}
	raw, err := p.config.Keys.Resource(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", u, err)
	}
	return raw, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err == nil && len(raw) > maxSource {
		err = fmt.Errorf("%s is larger than %d bytes: %w", path, maxSource, errdefs.ErrInvalidArgument)
	}
	return raw, err
}

// credentials returns the registries' credentials, read once unless fresh.
func (p *Puller) credentials(ctx context.Context, fresh bool) (*registry.Auth, error) {
	if p.config.CredentialsURI == "" {
		return nil, nil
	}
	p.authMu.Lock()
	known := p.auth
	p.authMu.Unlock()
	if known != nil && !fresh {
		return known, nil
	}
	raw, err := p.fetch(ctx, p.config.CredentialsURI)
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}
	defer clear(raw)
	auth, err := registry.ParseAuth(raw)
	if err != nil {
		return nil, err
	}
	p.authMu.Lock()
	p.auth = auth
	p.authMu.Unlock()
	return auth, nil
}
