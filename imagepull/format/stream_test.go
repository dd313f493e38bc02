package format_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestUnpackDamaged(t *testing.T) {
	good := NewLayer(t, Gzip, File("a", strings.Repeat("body", 1000)))
	cut := good
	cut.Blob = cut.Blob[:len(cut.Blob)-9]
	junk := good
	junk.Blob = append(bytes.Clone(junk.Blob), "junk behind the end"...)
	claim := good
	claim.MediaType = v1.MediaTypeImageLayerZstd
	wrong := good
	wrong.DiffID = digest.FromString("other")
	half := NewLayer(t, Plain, File("a", strings.Repeat("body", 1000)))
	half.Blob = half.Blob[:2000]
	cutZstd := NewLayer(t, Zstd, File("a", strings.Repeat("body", 1000)))
	cutZstd.Blob = cutZstd.Blob[:len(cutZstd.Blob)-3]
	sum := good
	sum.Blob = bytes.Clone(sum.Blob)
	sum.Blob[len(sum.Blob)-6] ^= 1 // of the checksum at the member's end
	behind := LayerOf(t, Gzip, append(Tar(t, File("a", "b")), "behind the archive"...))
	behind.DiffID = digest.FromBytes(Tar(t, File("a", "b")))
	window := NewLayer(t, Plain, File("a", "b"))
	window.MediaType, window.Blob = v1.MediaTypeImageLayerZstd, wideWindow(t, window.Blob)
	for name, l := range map[string]Layer{"cut": cut, "cut zstd": cutZstd, "junk": junk, "claim": claim, "diff id": wrong, "half": half,
		"checksum": sum, "behind the archive": behind, "window": window, "empty": {MediaType: v1.MediaTypeImageLayerGzip, DiffID: good.DiffID}} {
		if _, _, err := unpack(t, l, format.Limits{}); !errdefs.IsDataLoss(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wideWindow compresses with a window that no decoder here may allocate.
func wideWindow(t *testing.T, archive []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(256<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	w.Write(archive)
	if err := errors.Join(w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Bytes behind the archive's end are not files, but they count for the digest.
func TestBehindTheArchive(t *testing.T) {
	for _, tail := range [][]byte{make([]byte, 9000), []byte("anything")} {
		dir, res, err := unpack(t, LayerOf(t, Gzip, append(Tar(t, File("a", "b")), tail...)), format.Limits{})
		if err != nil || res.Entries != 1 || len(describe(t, dir)) != 1 {
			t.Errorf("%d entries, %v", res.Entries, err)
		}
	}
}

// The source's own error must reach the caller whatever parser it passes, and
// also when it comes behind the last byte that a parser wants.
func TestUnpackTellsTheSourcesError(t *testing.T) {
	for _, compression := range []string{Plain, Gzip, Zstd} {
		l := NewLayer(t, compression, File("a", "b"))
		for _, n := range []int{0, 10, len(l.Blob)} {
			r := io.MultiReader(bytes.NewReader(l.Blob[:n]), iotest.ErrReader(errdefs.ErrUnavailable))
			_, err := format.Unpackers(format.Limits{})[l.MediaType].Unpack(t.Context(),
				format.Layer{R: io.NopCloser(r), Dir: t.TempDir(), DiffID: l.DiffID})
			if !errdefs.IsUnavailable(err) {
				t.Errorf("%s after %d bytes: %v", compression, n, err)
			}
		}
	}
}

func TestManyMembers(t *testing.T) {
	archive := Tar(t, File("a", strings.Repeat("x", 5000)), File("b", "y"))
	var gz, zst bytes.Buffer
	for part := range slices.Chunk(archive, 1000) {
		g, _ := gzip.NewWriterLevel(&gz, 1)
		g.Write(part)
		g.Close()
		z, _ := zstd.NewWriter(&zst)
		z.Write(part)
		z.Close()
	}
	for mediaType, blob := range map[string][]byte{v1.MediaTypeImageLayerGzip: gz.Bytes(), v1.MediaTypeImageLayerZstd: zst.Bytes()} {
		dir, res, err := unpack(t, Layer{MediaType: mediaType, Blob: blob, DiffID: digest.FromBytes(archive)}, format.Limits{})
		if err != nil || res.Bytes != int64(len(archive)) {
			t.Fatalf("%s: %d bytes, %v", mediaType, res.Bytes, err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "b")); string(b) != "y" {
			t.Errorf("%s: b is %q", mediaType, b)
		}
	}
}

// A layer that fails early must not wait for a source that never answers.
func TestUnpackClosesASlowSource(t *testing.T) {
	r, w := io.Pipe()
	go w.Write(Tar(t, File("../x", strings.Repeat("x", 4<<20)))) // more than is read ahead
	_, err := format.Unpackers(format.Limits{})[v1.MediaTypeImageLayer].Unpack(t.Context(),
		format.Layer{R: format.ReadAhead(r, func() { r.Close() }), Dir: t.TempDir(), DiffID: digest.FromString("")})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

// A source that stalls within what is read ahead can be left only by its caller.
func TestUnpackEndsWithItsContext(t *testing.T) {
	for _, compression := range []string{Plain, Gzip, Zstd} {
		l := NewLayer(t, compression, File("a", "b"))
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			w.Write(l.Blob[:len(l.Blob)/2]) // returns when all of it was read
			cancel()
		}()
		_, err := format.Unpackers(format.Limits{})[l.MediaType].Unpack(ctx,
			format.Layer{R: format.ReadAhead(r, func() { r.Close() }), Dir: t.TempDir(), DiffID: l.DiffID})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", compression, err)
		}
	}
}

// Closing the source may end the caller's own context. What was wrong counts.
func TestUnpackTellsWhatWasFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := NewLayer(t, Plain, File("../x", ""))
	_, err := format.Unpackers(format.Limits{})[l.MediaType].Unpack(ctx, format.Layer{
		R: format.ReadAhead(io.NopCloser(bytes.NewReader(l.Blob)), cancel), Dir: t.TempDir(), DiffID: l.DiffID})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
