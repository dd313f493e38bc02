package imagepull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/imagepull/format"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/store"
)

// layers brings all layers into the store, the largest first, since the last
// one to finish decides. An error stops the others at once; layers that are
// complete by then stay for the next attempt.
func (p *Puller) layers(ctx context.Context, j *job, img *registry.Image, all plan) error {
	if err := p.room(all); err != nil {
		return err
	}
	order := make([]*planned, len(all))
	for i := range all {
		order[i] = &all[i]
	}
	slices.SortStableFunc(order, func(a, b *planned) int { return cmp.Compare(b.desc.Size, a.desc.Size) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.config.Layers)
	for _, l := range order {
		group.Go(func() error {
			if err := p.layer(ctx, j, img, l); err != nil {
				return fmt.Errorf("layer %d of %s: %w", l.number, j.ref, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// expansion is how many times its compressed size a layer usually takes. It
// decides what is cleared out beforehand, not whether a pull may begin.
const expansion = 4

// room makes sure that at least the compressed size of what is missing fits.
func (p *Puller) room(all plan) error {
	var need int64
	for i := range all {
		if !p.store.Has(all[i].key) {
			need += all[i].desc.Size
		}
	}
	if need == 0 {
		return nil
	}
	return p.store.Reserve(need, need*expansion)
}

func (p *Puller) layer(ctx context.Context, j *job, img *registry.Image, l *planned) error {
	filled := false
	var err error
	l.layer, err = p.store.Layer(ctx, l.key, j.pin, func(ctx context.Context, dir string) (store.Layer, error) {
		filled = true
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return store.Layer{}, ctx.Err()
		}
		return p.fill(ctx, j, img, l, dir)
	})
	if err != nil {
		return err
	}
	if !filled {
		j.progress.bytes.Add(l.desc.Size)
	}
	j.progress.layersDone.Add(1)
	return nil
}

// fill streams one layer from the registry into dir.
//
//	blob ─ (decrypt) ─┤ ahead ├─ decompress ─┤ ahead ├─ diff id, files
//
// The bars are goroutines' borders; see format for the right half.
func (p *Puller) fill(ctx context.Context, j *job, img *registry.Image, l *planned, dir string) (store.Layer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blob := img.Blob(ctx, l.desc)
	fetch := &stopwatch{r: blob, bytes: &j.progress.bytes}
	var stream io.Reader = fetch
	if l.secret != nil {
		plain, err := l.secret.Reader(fetch)
		if err != nil {
			blob.Close()
			return store.Layer{}, err
		}
		stream = plain
	}
	both := &stopwatch{r: stream}
	ahead := format.ReadAhead(readCloser{both, blob}, cancel)
	wait := &stopwatch{r: ahead}
	began := time.Now()
	res, err := p.unpackers[l.mediaType].Unpack(ctx, format.Layer{R: readCloser{wait, ahead}, Dir: dir, DiffID: l.key.DiffID})
	ahead.Close() // the watches are at rest behind this
	j.progress.took(PhaseFetch, fetch.spent)
	j.progress.took(PhaseDecrypt, both.spent-fetch.spent)
	j.progress.took(PhaseUnpack, time.Since(began)-wait.spent)
	if err != nil {
		j.progress.bytes.Add(-fetch.count)
		return store.Layer{}, p.full(l, err)
	}
	return store.Layer{Implied: res.Implied, Bytes: res.Bytes}, nil
}

// full says what a full disk means for an image.
func (p *Puller) full(l *planned, err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	free, inodes, _ := p.store.Free()
	return fmt.Errorf("%s is full: the layer has %d bytes before unpacking, %d bytes and %d inodes are left: %w: %w",
		p.config.WorkDir, l.desc.Size, free, inodes, errdefs.ErrResourceExhausted, err)
}

type readCloser struct {
	io.Reader
	io.Closer
}
