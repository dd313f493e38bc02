// Package format turns the bytes of a layer into files. The bytes are hostile:
// a layer is parsed before anybody knows whether its digest is right, so every
// step is bounded, nothing is written outside the directory it was given, and
// the caller throws the directory away unless Unpack succeeds.
//
// It uses github.com/klauspost/compress, whose gzip is faster than that of the
// standard library and which knows zstd.
package format

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is one layer to unpack.
type Layer struct {
	// R yields the layer as the registry has it, decrypted. Unpack closes it,
	// early when it fails or ctx ends: Close may be called during a Read, must
	// make it return, and may be called again.
	R io.ReadCloser
	// Dir is an existing empty directory.
	Dir string
	// DiffID is what the uncompressed layer must hash to.
	DiffID digest.Digest
}

// Result is what is known about an unpacked layer.
type Result struct {
	Bytes   int64 // uncompressed
	Entries int
	Dropped int // device nodes that were left out
	// Implied are the directories that files needed but the layer does not
	// describe, "." for the top. Their owner and mode are those of the layers
	// below. Sorted.
	Implied []string
}

// An Unpacker knows one kind of layer. It shares no memory with its caller
// beyond the call, so that it could run in a process of its own. On error the
// directory holds a part of the layer, or a wrong one.
type Unpacker interface {
	Unpack(ctx context.Context, l Layer) (Result, error)
}

// Limits bound what a layer may cost. Zero values take the defaults.
type Limits struct {
	Bytes     int64 // uncompressed, holes included; 64 GiB
	Entries   int   // 4 million
	Depth     int   // components of a path; 255
	Ratio     int64 // uncompressed to compressed, behind the first 64 MiB; 1000
	Window    uint64
	AllowDevs bool // device nodes are made instead of left out
}

func (l Limits) withDefaults() Limits {
	l.Bytes = cmp.Or(l.Bytes, 64<<30)
	l.Entries = cmp.Or(l.Entries, 4<<20)
	l.Depth = cmp.Or(l.Depth, 255)
	l.Ratio = cmp.Or(l.Ratio, 1000)
	l.Window = cmp.Or(l.Window, 128<<20)
	return l
}

// Unpackers returns the table of layer formats: media type to unpacker.
func Unpackers(l Limits) map[string]Unpacker {
	l = l.withDefaults()
	plain, gz, zst := tarball{l, nil}, tarball{l, gunzip}, tarball{l, unzstd}
	return map[string]Unpacker{
		v1.MediaTypeImageLayer:                                         plain,
		v1.MediaTypeImageLayerGzip:                                     gz,
		v1.MediaTypeImageLayerZstd:                                     zst,
		"application/vnd.oci.image.layer.nondistributable.v1.tar":      plain,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": gz,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": zst,
		"application/vnd.docker.image.rootfs.diff.tar":                 plain,
		"application/vnd.docker.image.rootfs.diff.tar.gzip":            gz,
		"application/vnd.docker.image.rootfs.diff.tar.zstd":            zst,
	}
}

// tarball unpacks a tar archive into a directory with the whiteouts of
// overlayfs.
type tarball struct {
	limits     Limits
	decompress func(io.Reader, Limits) (io.ReadCloser, error) // nil for none
}

// Unpack implements Unpacker. Decompression runs in a goroutine of its own,
// since it costs more than all the rest.
func (t tarball) Unpack(ctx context.Context, l Layer) (res Result, err error) {
	guard := &guard{in: l.R, limits: t.limits}
	plain := ReadAhead(guard.count(t.open(guard)), nil)
	// A source that stalls does not hold whoever gave up.
	stop := context.AfterFunc(ctx, func() { l.R.Close() })
	defer func() {
		ended := !stop()
		l.R.Close() // first: it ends the read that the goroutine may be in
		plain.Close()
		if err != nil && ended {
			err = ctx.Err() // what closing R has caused says less
		}
		if err != nil {
			err = fmt.Errorf("unpack layer: %w", err)
		}
	}()
	hash := l.DiffID.Algorithm().Hash()
	stream := io.TeeReader(plain, hash)
	if res, err = extract(ctx, stream, l.Dir, t.limits); err != nil {
		return res, err
	}
	// What follows the archive belongs to the layer's digest, and the source
	// tells only at its end whether it was the right one.
	if _, err = io.Copy(io.Discard, stream); err == nil {
		plain.Close() // the goroutine is past its last read, since the end came through
		_, err = io.Copy(io.Discard, l.R)
	}
	if err != nil {
		return res, err
	}
	if got := digest.NewDigest(l.DiffID.Algorithm(), hash); got != l.DiffID {
		return res, fmt.Errorf("content does not match diff id %s: %w", l.DiffID, errdefs.ErrDataLoss)
	}
	res.Bytes = guard.out
	return res, nil
}

func (t tarball) open(g *guard) io.ReadCloser {
	if t.decompress == nil {
		return io.NopCloser(sourceOf{g})
	}
	return &lazy{open: func() (io.ReadCloser, error) { return t.decompress(sourceOf{g}, t.limits) }}
}

// lazy opens a decompressor at the first read, because opening reads already.
type lazy struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(p)
}

func (l *lazy) Close() error {
	if l.r == nil {
		return nil
	}
	return l.r.Close()
}

var errClosed = errors.New("layer is closed")
