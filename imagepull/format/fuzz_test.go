package format_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// tiny keeps a round of fuzzing short.
var tiny = format.Limits{Bytes: 1 << 20, Entries: 100, Depth: 10, Window: 1 << 20}

// into unpacks blob to a directory beside which nothing may appear.
func into(t *testing.T, mediaType string, blob []byte, diffID digest.Digest) (format.Result, error) {
	base := t.TempDir()
	dir := filepath.Join(base, "layer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := format.Unpackers(tiny)[mediaType].Unpack(t.Context(), format.Layer{
		R: io.NopCloser(bytes.NewReader(blob)), Dir: dir, DiffID: diffID})
	if left, err := os.ReadDir(base); err != nil || len(left) != 1 {
		t.Errorf("beside the layer: %v %v", left, err)
	}
	os.Chmod(dir, 0o755)
	return res, err
}

// FuzzUnpack feeds archives. Whatever they hold, nothing leaves the directory
// and the limits hold.
func FuzzUnpack(f *testing.F) {
	for _, entries := range [][]Entry{
		{Dir("d", 0o755), File("d/f", "body"), Symlink("l", "/etc"), Hardlink("h", "d/f")},
		{Symlink("d", "/tmp"), File("d/x", "")},
		{File("a/.wh.b", ""), File("a/.wh..wh..opq", "")},
		{File("../../x", "")},
	} {
		f.Add(Tar(f, entries...))
	}
	if os.Geteuid() != 0 {
		f.Skip("owners and deletions need root")
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		res, err := into(t, v1.MediaTypeImageLayer, archive, digest.FromBytes(archive))
		if res.Entries > tiny.Entries+1 || err == nil && res.Bytes != int64(len(archive)) {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// FuzzGzip holds the fast decompressor to what the standard library makes of
// the same bytes: an archive is accepted for exactly those contents or not at all.
func FuzzGzip(f *testing.F) {
	one := NewLayer(f, Gzip, File("a", "body")).Blob
	f.Add(one)
	f.Add(append(bytes.Clone(one), one...))
	f.Add(one[:len(one)-1])
	f.Add(append(bytes.Clone(one), 0, 0))
	if os.Geteuid() != 0 {
		f.Skip("owners need root")
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		var want []byte
		z, wantErr := stdgzip.NewReader(bytes.NewReader(blob))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(z, tiny.Bytes+1))
		}
		res, err := into(t, v1.MediaTypeImageLayerGzip, blob, digest.FromBytes(want))
		if err == nil && (wantErr != nil || res.Bytes != int64(len(want))) {
			t.Errorf("accepted %d bytes; the standard library has %d, %v", res.Bytes, len(want), wantErr)
		}
	})
}

// FuzzZstd feeds frames. What is accepted is what the one-shot decoder finds.
func FuzzZstd(f *testing.F) {
	one := NewLayer(f, Zstd, File("a", "body")).Blob
	f.Add(one)
	f.Add(append(bytes.Clone(one), one...))
	f.Add(append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), one...))
	f.Add(one[:len(one)-1])
	if os.Geteuid() != 0 {
		f.Skip("owners need root")
	}
	whole, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(tiny.Bytes)), zstd.WithDecoderMaxWindow(tiny.Window), zstd.WithDecoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(whole.Close)
	f.Fuzz(func(t *testing.T, blob []byte) {
		want, wantErr := whole.DecodeAll(blob, nil)
		res, err := into(t, v1.MediaTypeImageLayerZstd, blob, digest.FromBytes(want))
		if err == nil && (wantErr != nil || res.Bytes != int64(len(want))) {
			t.Errorf("accepted %d bytes; at once it is %d, %v", res.Bytes, len(want), wantErr)
		}
	})
}
