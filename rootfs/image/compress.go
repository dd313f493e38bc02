package image

import (
	"compress/gzip"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory that the kernel needs to unpack the initrd.
const zstdWindow = 8 << 20

// compressor wraps the initrd's archive. Each works on one goroutine, so that
// the bytes do not depend on scheduling. zstd (klauspost/compress, because the
// standard library has no encoder) makes the smallest image; none boots soonest
// where the initrd is handed over in memory.
func compressor(w io.Writer, name string) (io.WriteCloser, error) {
	switch name {
	case "", "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(zstdWindow), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	case "gzip":
		return gzip.NewWriterLevel(w, gzip.BestCompression)
	case "none":
		return plain{w}, nil
	}
	return nil, fmt.Errorf("compression %q is neither zstd, gzip nor none: %w", name, errdefs.ErrInvalidArgument)
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }
