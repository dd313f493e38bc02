package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	minProgress = 16 << 10 // in one stall period, or the connection is given up
	goodwill    = 1 << 20  // bytes after which earlier failures are forgotten
)

// Blob returns the reader of a blob. It reports io.EOF only after exactly the
// bytes that the descriptor promises; on wrong size or digest its last call
// fails instead, so a caller must read to the end before it believes anything.
//
// A broken connection is picked up where it broke: by range where the registry
// can, else by reading again what was read. Reads stop when ctx ends.
func (i *Image) Blob(ctx context.Context, d v1.Descriptor) io.ReadCloser {
	return &blob{ctx: ctx, image: i, desc: d, hash: d.Digest.Algorithm().Hash(), wait: i.client.config.Backoff}
}

func (i *Image) readBlob(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	r := i.Blob(ctx, d)
	defer r.Close()
	return io.ReadAll(r)
}

// errTruncated marks an end that came too early without a fault of the
// connection, which a proxy on the way may have caused.
var errTruncated = errors.New("truncated")

type blob struct {
	ctx   context.Context
	image *Image
	desc  v1.Descriptor
	hash  hash.Hash
	off   int64 // bytes handed out and hashed

	conn     *connection // nil when none is open
	behind   error       // came with the last bytes of conn
	failures int         // in a row
	since    int64       // bytes read since the last failure
	wait     time.Duration
	done     error // what every further call returns
}

func (b *blob) Read(p []byte) (int, error) {
	if b.done != nil {
		return 0, b.done
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := b.next(p)
		if n > 0 {
			b.hash.Write(p[:n])
			b.off += int64(n)
			b.since += int64(n)
			if b.off > b.desc.Size {
				return 0, b.fail(fmt.Errorf("longer than the %d bytes of its descriptor: %w", b.desc.Size, errdefs.ErrDataLoss))
			}
			return n, nil
		}
		if err == io.EOF && b.off == b.desc.Size {
			return 0, b.finish()
		}
		switch {
		case err == nil:
			continue // the library has reconnected by itself and asks for patience
		case err == io.EOF:
			err = fmt.Errorf("%w after %d of %d bytes: %w", errTruncated, b.off, b.desc.Size, errdefs.ErrDataLoss)
		case errors.Is(err, io.ErrUnexpectedEOF):
			err = fmt.Errorf("connection cut after %d of %d bytes: %w", b.off, b.desc.Size, errdefs.ErrUnavailable)
		}
		if err := b.recover(err); err != nil {
			return 0, err
		}
	}
}

// next reads from the open connection, or from a new one behind what was read.
func (b *blob) next(p []byte) (int, error) {
	if b.conn == nil {
		conn, err := b.image.connect(b.ctx, b.desc)
		if err != nil {
			return 0, err
		}
		b.conn = conn
		if _, err := io.CopyN(io.Discard, conn, b.off); err != nil {
			return 0, err
		}
	}
	if b.behind != nil {
		err := b.behind
		b.behind = nil
		return 0, err
	}
	n, err := b.conn.Read(p)
	if n > 0 {
		b.behind = err
		return n, nil
	}
	return 0, err
}

// recover decides whether another connection is worth it.
func (b *blob) recover(err error) error {
	b.drop()
	if ended := b.ctx.Err(); ended != nil {
		return b.fail(ended)
	}
	if !transient(err) && !errors.Is(err, errTruncated) {
		return b.fail(err)
	}
	if b.since >= goodwill {
		b.failures, b.wait = 0, b.image.client.config.Backoff
	}
	b.since = 0
	if b.failures++; b.failures >= b.image.client.config.Attempts {
		return b.fail(err)
	}
	if ended := sleep(b.ctx, b.wait); ended != nil {
		return b.fail(ended)
	}
	b.wait *= 2
	return nil
}

func (b *blob) finish() error {
	if got := b.hash.Sum(nil); fmt.Sprintf("%x", got) != b.desc.Digest.Encoded() {
		return b.fail(fmt.Errorf("content does not match its digest: %w", errdefs.ErrDataLoss))
	}
	b.done = io.EOF
	return io.EOF
}

func (b *blob) fail(err error) error {
	b.done = fmt.Errorf("fetch blob %s: %w", b.desc.Digest, err)
	return b.done
}

func (b *blob) drop() {
	b.behind = nil
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}

func (b *blob) Close() error {
	b.drop()
	if b.done == nil {
		b.done = fmt.Errorf("blob is closed: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// connection is one request for a blob, given up when it stalls.
type connection struct {
	outer  context.Context // the caller's
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser
	stall  time.Duration
	timer  *time.Timer   // cancels; runs only inside Read, as the caller may be slow
	waited time.Duration // inside Read, since the last minProgress bytes
	got    int
}

func (i *Image) connect(ctx context.Context, d v1.Descriptor) (*connection, error) {
	limited, cancel := context.WithCancel(ctx)
	c := &connection{outer: ctx, ctx: limited, cancel: cancel, stall: i.client.config.Stall}
	c.timer = time.AfterFunc(c.stall, cancel)
	// No URLs and no media type: the library would follow them.
	body, size, err := i.source.GetBlob(limited, types.BlobInfo{Digest: d.Digest, Size: d.Size}, none.NoCache)
	if err == nil && size >= 0 && size != d.Size {
		body.Close()
		err = fmt.Errorf("registry has %d bytes, the descriptor says %d: %w", size, d.Size, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, c.explain(err)
	}
	c.timer.Stop()
	c.body = body
	return c, nil
}

func (c *connection) Read(p []byte) (int, error) {
	c.timer.Reset(c.stall - c.waited)
	start := time.Now()
	n, err := c.body.Read(p)
	c.timer.Stop()
	c.waited += time.Since(start)
	if c.got += n; c.got >= minProgress {
		c.got, c.waited = 0, 0
	}
	if c.waited >= c.stall {
		c.cancel()
	}
	if err != nil && err != io.EOF {
		return n, c.explain(err)
	}
	return n, err
}

// explain tells a stall, which only our own cancel can be, from other ends.
func (c *connection) explain(err error) error {
	stalled := c.ctx.Err() != nil && c.outer.Err() == nil
	c.Close()
	if stalled {
		return fmt.Errorf("registry sent less than %d bytes in %s: %w", minProgress, c.stall, errdefs.ErrUnavailable)
	}
	return Explain(err)
}

func (c *connection) Close() error {
	c.timer.Stop()
	c.cancel()
	if c.body == nil {
		return nil
	}
	return c.body.Close()
}
