package imagepull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/imagepull/decrypt"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/store"
)

// job is one pull. It is known by its reference as long as it runs, so that a
// tag is resolved once for all who wait. Layers are shared by what they contain
// whatever the reference. Policy and keys are evaluated by each job anew,
// including for layers that are there already.
type job struct {
	ref      registry.Reference
	pin      string // the job's name as a user of layers
	progress *progress
	refs     int           // the job itself and its waiters; guarded by Puller.mu
	done     chan struct{} // closed when image and err are final
	image    *pulled
	err      error
}

// pulled is an image with all its layers in the store.
type pulled struct {
	reference string
	digest    string
	index     string // digest of the index that the image was chosen from, or empty
	config    v1.Image
	keys      []store.Key // of the layers, bottom first
	layers    []store.Layer
	inherited []inherited
}

// join returns the running job for the reference, or starts it.
func (p *Puller) join(ctx context.Context, r registry.Reference) (*job, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("image puller is closed: %w", errdefs.ErrFailedPrecondition)
	}
	if j := p.running[r.String()]; j != nil {
		j.refs++
		return j, nil
	}
	p.serial++
	j := &job{ref: r, pin: fmt.Sprintf("job %d", p.serial), refs: 2,
		progress: newProgress(r.String()), done: make(chan struct{})}
	p.running[r.String()] = j
	p.jobs.Add(1)
	go p.run(context.WithoutCancel(ctx), j)
	return j, nil
}

// leave takes one reference back; with the last the layers lose the job's pins.
func (p *Puller) leave(j *job) {
	p.mu.Lock()
	j.refs--
	last := j.refs == 0
	p.mu.Unlock()
	if last {
		p.store.Release(j.pin)
	}
}

// run is the life of a job. ctx carries the log attributes of the first caller.
func (p *Puller) run(ctx context.Context, j *job) {
	defer p.jobs.Done()
	defer p.leave(j)
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()

	j.image, j.err = p.pull(ctx, j)
	if j.err != nil {
		j.err = p.word(ctx, j, j.err)
		slog.ErrorContext(ctx, "image pull failed", "reference", j.ref.String(), "error", j.err)
	} else {
		j.progress.log(ctx, j.image)
	}
	j.progress.end(j.err)
	p.mu.Lock()
	delete(p.running, j.ref.String())
	p.remember(j.progress)
	p.mu.Unlock()
	close(j.done)
}

// maxHistory is how many finished pulls stay visible.
const maxHistory = 32

func (p *Puller) remember(pr *progress) {
	p.history = append(p.history, pr)
	if n := len(p.history) - maxHistory; n > 0 {
		p.history = append(p.history[:0:0], p.history[n:]...)
	}
}

// word says which pull failed, and tells our own time limit from others.
func (p *Puller) word(ctx context.Context, j *job, err error) error {
	switch {
	case p.ctx.Err() != nil:
		return fmt.Errorf("pull of %s was ended: %w", j.ref, errdefs.ErrAborted)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("pull of %s took longer than %s, %s: %w", j.ref, p.config.Timeout, j.progress.snapshot(), context.DeadlineExceeded)
	}
	return err
}

func (p *Puller) pull(ctx context.Context, j *job) (*pulled, error) {
	j.progress.enter(PhaseResolve)
	src, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	img, err := p.resolve(ctx, src.client, j.ref)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if tag := j.ref.OverruledTag(); tag != "" {
		slog.DebugContext(ctx, "digest overrules tag", "reference", j.ref.String(), "tag", tag)
	}
	j.progress.resolved(img)

	j.progress.enter(PhaseVerify)
	if src.policy != nil {
		if _, err := src.policy.Verify(ctx, img); err != nil {
			return nil, err
		}
	}
	config, err := img.Config(ctx)
	if err != nil {
		return nil, err
	}

	j.progress.enter(PhaseKey)
	layers, err := p.plan(ctx, img.Manifest.Layers, config.RootFS.DiffIDs)
	if err != nil {
		return nil, err
	}
	defer layers.wipe()

	j.progress.enter(PhaseFetch)
	out := &pulled{reference: j.ref.String(), digest: img.Digest.String(), index: img.IndexDigest.String(), config: config}
	if err := p.layers(ctx, j, img, layers); err != nil {
		return nil, err
	}
	for i := range layers {
		out.keys = append(out.keys, layers[i].key)
		out.layers = append(out.layers, layers[i].layer)
	}
	out.inherited, err = inherit(ctx, out.layers)
	return out, err
}

// resolve asks again with fresh credentials when those at hand are refused.
func (p *Puller) resolve(ctx context.Context, c *registry.Client, r registry.Reference) (*registry.Image, error) {
	auth, err := p.credentials(ctx, false)
	if err != nil {
		return nil, err
	}
	img, err := c.Resolve(ctx, r, auth)
	if auth == nil || !errdefs.IsUnauthorized(err) {
		return img, err
	}
	if auth, err = p.credentials(ctx, true); err != nil {
		return nil, err
	}
	return c.Resolve(ctx, r, auth)
}

// planned is one layer of an image on its way into the store.
type planned struct {
	number    int // from 1, for messages
	desc      v1.Descriptor
	mediaType string // below the encryption
	key       store.Key
	secret    *decrypt.Key // nil for a layer in the clear
	layer     store.Layer  // final when the layer is there
}

type plan []planned

func (l plan) wipe() {
	for i := range l {
		if l[i].secret != nil {
			l[i].secret.Wipe()
		}
	}
}

// plan finds out what each layer is and unwraps the keys of encrypted ones.
func (p *Puller) plan(ctx context.Context, descs []v1.Descriptor, diffIDs []digest.Digest) (plan, error) {
	layers := make(plan, len(descs))
	for i, d := range descs {
		l := &layers[i]
		var encrypted bool
		l.number, l.desc = i+1, d
		l.mediaType, encrypted = decrypt.MediaType(d.MediaType)
		l.key = store.Key{DiffID: diffIDs[i]}
		if p.unpackers[l.mediaType] == nil {
			layers.wipe()
			return nil, fmt.Errorf("layer %d has media type %.80q: %w", l.number, d.MediaType, errdefs.ErrNotImplemented)
		}
		if !encrypted {
			continue
		}
		if err := p.unwrap(ctx, l); err != nil {
			layers.wipe()
			return nil, fmt.Errorf("layer %d: %w", l.number, err)
		}
	}
	return layers, nil
}

// keyTimeout bounds the time that the broker may take for one layer's key.
const keyTimeout = 50 * time.Second

func (p *Puller) unwrap(ctx context.Context, l *planned) error {
	if p.config.Keys == nil {
		return fmt.Errorf("layer is encrypted and no key broker is configured: %w", errdefs.ErrFailedPrecondition)
	}
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	var err error
	if l.secret, err = decrypt.Unwrap(ctx, p.config.Keys, l.desc); err != nil {
		return err
	}
	l.key.Scope = l.secret.KeyID()
	return nil
}
