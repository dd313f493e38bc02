package format

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// gunzip reads all members one after the other, as pigz and stargz write many.
func gunzip(r io.Reader, _ Limits) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", damaged(err))
	}
	return z, nil
}

// unzstd reads all frames. The decoder works in the reading goroutine alone.
func unzstd(r io.Reader, l Limits) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(l.Window), zstd.WithDecoderMaxMemory(uint64(l.Bytes)))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", damaged(err))
	}
	return z.IOReadCloser(), nil
}

// damaged gives a class to what decompressors say about their input. Errors of
// the source have one already.
func damaged(err error) error {
	if err == nil || err == io.EOF || errdefs.Resolve(err) != errdefs.ErrUnknown {
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
}

// freeRatio is what may come out before the ratio counts: small layers of zeros
// are common.
const freeRatio = 64 << 20

// guard counts what goes into a decompressor and what comes out, and ends a
// layer that grows beyond its limits. Both ends belong to one goroutine.
type guard struct {
	in      io.Reader
	limits  Limits
	inBytes int64
	out     int64
	read    error // what ended the source
}

// sourceOf is the guarded source. It keeps the source's own error, which
// decompressors replace by theirs.
type sourceOf struct{ g *guard }

func (s sourceOf) Read(p []byte) (int, error) {
	n, err := s.g.in.Read(p)
	s.g.inBytes += int64(n)
	if err != nil && err != io.EOF {
		s.g.read = err
	}
	return n, err
}

func (g *guard) count(r io.ReadCloser) io.ReadCloser { return &counted{r, g} }

type counted struct {
	io.ReadCloser
	g *guard
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	g := c.g
	g.out += int64(n)
	switch {
	case g.out > g.limits.Bytes:
		return 0, fmt.Errorf("layer is larger than %d bytes: %w", g.limits.Bytes, errdefs.ErrResourceExhausted)
	case g.out > freeRatio && g.out/g.limits.Ratio > g.inBytes:
		return 0, fmt.Errorf("layer grows more than %d times: %w", g.limits.Ratio, errdefs.ErrResourceExhausted)
	case err == nil || err == io.EOF:
		return n, err
	case g.read != nil:
		return n, g.read
	}
	return n, damaged(err)
}
