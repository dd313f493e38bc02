package imagepull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull/format"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/store"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/storage"
)

// Puller pulls images and keeps what it pulled. It is safe for concurrent use.
type Puller struct {
	config    Config
	store     *store.Store
	unpackers map[string]format.Unpacker
	slots     chan struct{} // one token for each layer in work

	// Jobs live in this context and not in that of a caller.
	ctx    context.Context
	cancel context.CancelFunc
	jobs   sync.WaitGroup

	opening chan struct{} // held while sources are read
	sources *sources      // guarded by opening

	authMu sync.Mutex // guards auth
	auth   *registry.Auth

	mu      sync.Mutex // guards what follows, never held across I/O
	running map[string]*job
	history []*progress // of finished jobs, oldest first
	rootfs  map[string]*rootfs
	serial  int
	closed  bool
}

var _ storage.Images = (*Puller)(nil)

// New prepares the work directory, which it empties. It reaches for nothing
// outside the machine.
func New(c Config) (*Puller, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := sweep(c.WorkDir); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", c.WorkDir, err)
	}
	s, err := store.Open(c.WorkDir)
	if err != nil {
		return nil, err
	}
	p := &Puller{
		config:    c,
		store:     s,
		unpackers: format.Unpackers(c.Limits),
		slots:     make(chan struct{}, c.slots()),
		opening:   make(chan struct{}, 1),
		running:   map[string]*job{},
		rootfs:    map[string]*rootfs{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// sweep removes what an earlier run has left: mounts first, then directories.
func sweep(workDir string) error {
	if err := os.MkdirAll(workDir, 0o700); err != nil {
		return err
	}
	containers := filepath.Join(workDir, "containers")
	mounts, err := mount.Table(containers)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := mount.UnmountLazy(m.Target); err != nil {
			return err
		}
	}
	for _, dir := range []string{containers, filepath.Join(workDir, "private")} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.Mkdir(containers, 0o700)
}

// Pull brings the image to the guest and mounts a root file system for the
// owner. The pull itself goes on when ctx ends, so that whoever asks again for
// the same image joins it; the error then says how far it is. Asking again for
// an owner that has its root file system returns that one, if the image is the
// same.
func (p *Puller) Pull(ctx context.Context, ref, owner string) (storage.Image, error) {
	r, err := registry.ParseReference(ref)
	if err != nil {
		return storage.Image{}, err
	}
	if owner == "" {
		return storage.Image{}, fmt.Errorf("pull %s for nobody: %w", r, errdefs.ErrInvalidArgument)
	}
	j, err := p.join(ctx, r)
	if err != nil {
		return storage.Image{}, err
	}
	defer p.leave(j)
	select {
	case <-j.done:
	case <-ctx.Done():
		return storage.Image{}, fmt.Errorf("pull of %s goes on without its caller, %s: %w", r, j.progress.snapshot(), ctx.Err())
	}
	if j.err != nil {
		return storage.Image{}, j.err
	}
	return p.mount(ctx, j.image, owner)
}

// Progress tells about the pulls that run and the last ones that ended.
func (p *Puller) Progress() []Progress {
	p.mu.Lock()
	all := append([]*progress(nil), p.history...)
	for _, j := range p.running {
		all = append(all, j.progress)
	}
	p.mu.Unlock()
	return snapshots(all)
}

// Close ends running pulls, waits for them, and releases all owners.
func (p *Puller) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	owners := make([]string, 0, len(p.rootfs))
	for o := range p.rootfs {
		owners = append(owners, o)
	}
	p.mu.Unlock()
	p.cancel()
	p.jobs.Wait()
	var errs []error
	for _, o := range owners {
		errs = append(errs, p.Release(ctx, o))
	}
	p.opening <- struct{}{}
	defer func() { <-p.opening }()
	if p.sources != nil {
		errs = append(errs, p.sources.client.Close())
		p.sources = nil
	}
	return errors.Join(errs...)
}
