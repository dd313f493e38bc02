package encrypt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/coffer-cc/coffer/imagepull/registry"
)

// refName is the annotation by which an OCI layout knows its images' tags.
const refName = "org.opencontainers.image.ref.name"

// Remote says how registries are reached. The zero value uses the machine's
// certificates and the credentials of the user's docker or podman login.
type Remote struct {
	Roots     []string // PEM, trusted beside the system's
	PlainHTTP bool
	Username  string // overrules the login of the user when not empty
	Password  string
	Auth      *registry.Auth // takes the place of that login when not nil
}

func (r Remote) options(ctx context.Context) ([]remote.Option, error) {
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	switch {
	case r.Username != "":
		opts[1] = remote.WithAuth(&authn.Basic{Username: r.Username, Password: r.Password})
	case r.Auth != nil:
		opts[1] = remote.WithAuthFromKeychain(keychain{r.Auth})
	}
	if len(r.Roots) == 0 {
		return opts, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	for i, pem := range r.Roots {
		if !pool.AppendCertsFromPEM([]byte(pem)) {
			return nil, fmt.Errorf("root certificate %d is not PEM: %w", i+1, errdefs.ErrInvalidArgument)
		}
	}
	tr := remote.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	return append(opts, remote.WithTransport(tr)), nil
}

// keychain finds credentials as the guest does: by the longest part of the name.
type keychain struct{ auth *registry.Auth }

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	ref, err := registry.ParseReference(target.String())
	if err != nil {
		return nil, err
	}
	c, ok := k.auth.Lookup(ref)
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken}), nil
}

// location is where an image is: docker://REFERENCE in a registry, or
// oci:DIRECTORY[:TAG] in an OCI image layout. Exactly one of ref and dir is set.
type location struct {
	ref  name.Reference
	dir  string
	tag  string // of a layout; "" means the only image there
	opts []remote.Option
}

func locate(ctx context.Context, text string, r Remote) (location, error) {
	if path, ok := strings.CutPrefix(text, "oci:"); ok {
		dir, tag, _ := strings.Cut(path, ":")
		if dir == "" {
			return location{}, fmt.Errorf("%q names no directory: %w", text, errdefs.ErrInvalidArgument)
		}
		return location{dir: dir, tag: tag}, nil
	}
	rest, ok := strings.CutPrefix(text, "docker://")
	if !ok {
		return location{}, fmt.Errorf("%q is neither docker://REFERENCE nor oci:DIRECTORY[:TAG]: %w", text, errdefs.ErrInvalidArgument)
	}
	var nameOpts []name.Option
	if r.PlainHTTP {
		nameOpts = append(nameOpts, name.Insecure)
	}
	ref, err := name.ParseReference(rest, nameOpts...)
	if err != nil {
		return location{}, fmt.Errorf("image reference %q: %w: %w", rest, err, errdefs.ErrInvalidArgument)
	}
	opts, err := r.options(ctx)
	return location{ref: ref, opts: opts}, err
}

// artifact is an image or an index; exactly one is set.
type artifact struct {
	digest v1.Hash
	image  v1.Image
	index  v1.ImageIndex
}

// open reads what is at the location.
func (l location) open() (artifact, error) {
	if l.dir != "" {
		return l.openLayout()
	}
	d, err := remote.Get(l.ref, l.opts...)
	if err != nil {
		return artifact{}, explain(fmt.Errorf("read %s: %w", l.ref, err))
	}
	a := artifact{digest: d.Digest}
	if d.MediaType.IsIndex() {
		a.index, err = d.ImageIndex()
	} else {
		a.image, err = d.Image()
	}
	return a, err
}

func (l location) openLayout() (artifact, error) {
	index, err := layout.ImageIndexFromPath(l.dir)
	if err != nil {
		return artifact{}, fmt.Errorf("read OCI layout: %w", err)
	}
	desc, err := l.find(index)
	if err != nil {
		return artifact{}, err
	}
	a := artifact{digest: desc.Digest}
	if desc.MediaType.IsIndex() {
		a.index, err = index.ImageIndex(desc.Digest)
	} else {
		a.image, err = index.Image(desc.Digest)
	}
	return a, err
}

func (l location) find(index v1.ImageIndex) (v1.Descriptor, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read OCI layout: %w", err)
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		tag := d.Annotations[refName]
		if tag == l.tag || l.tag == "" && !strings.HasSuffix(tag, ".sig") {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return v1.Descriptor{}, fmt.Errorf("no image %q in %s: %w", l.tag, l.dir, errdefs.ErrNotFound)
	}
	return v1.Descriptor{}, fmt.Errorf("%s has %d images, name one by :TAG: %w", l.dir, len(found), errdefs.ErrInvalidArgument)
}

// openOrCreate opens the OCI layout in dir.
func openOrCreate(dir string) (layout.Path, error) {
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return layout.FromPath(dir)
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return layout.Write(dir, empty.Index)
}

// explain gives classes to what the registry answered.
func explain(err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnauthenticated)
	case answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case answer.StatusCode >= 500:
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return err
}
