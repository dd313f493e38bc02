package imagepulltest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is one entry of a layer. Size, mode, type and time have defaults: a
// name that ends in a slash is a directory, one with a Linkname a symlink.
type Entry struct {
	tar.Header
	Body string
}

// File is a regular file.
func File(name, body string) Entry { return Entry{tar.Header{Name: name, Mode: 0o644}, body} }

// Dir is a directory.
func Dir(name string, mode int64) Entry {
	return Entry{tar.Header{Name: strings.TrimSuffix(name, "/") + "/", Mode: mode, Typeflag: tar.TypeDir}, ""}
}

// Symlink points name to target.
func Symlink(name, target string) Entry {
	return Entry{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}

// Hardlink is a further name for target.
func Hardlink(name, target string) Entry {
	return Entry{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink, Mode: 0o644}, ""}
}

// Busybox is Debian's static busybox with names for sh and a few more.
func Busybox(t testing.TB) []Entry {
	t.Helper()
	body, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	entries := []Entry{Dir("bin", 0o755), {tar.Header{Name: "bin/busybox", Mode: 0o755}, string(body)}}
	for _, name := range []string{"sh", "ls", "cat", "echo", "sleep", "true", "false", "id", "sha256sum", "wget"} {
		entries = append(entries, Symlink("bin/"+name, "busybox"))
	}
	return append(entries, Dir("etc", 0o755), File("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"), File("etc/group", "root:x:0:\n"))
}

// Tar returns the archive of entries.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format = tar.FormatPAX
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1700000000, 0)
		}
		e.Size = int64(len(e.Body))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Layer is one layer of an image.
type Layer struct {
	MediaType   string
	Blob        []byte
	DiffID      digest.Digest
	Annotations map[string]string
}

// Digest is that of the blob.
func (l Layer) Digest() digest.Digest { return digest.FromBytes(l.Blob) }

// The compressions of NewLayer.
const (
	Plain = "plain"
	Gzip  = "gzip"
	Zstd  = "zstd"
)

// NewLayer makes a layer of entries.
func NewLayer(t testing.TB, compression string, entries ...Entry) Layer {
	t.Helper()
	return LayerOf(t, compression, Tar(t, entries...))
}

// LayerOf makes a layer of an archive.
func LayerOf(t testing.TB, compression string, archive []byte) Layer {
	t.Helper()
	l := Layer{MediaType: v1.MediaTypeImageLayer, DiffID: digest.FromBytes(archive), Blob: archive}
	var b bytes.Buffer
	var w io.WriteCloser
	switch compression {
	case Plain:
		return l
	case Gzip:
		l.MediaType = v1.MediaTypeImageLayerGzip
		w, _ = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	case Zstd:
		l.MediaType = v1.MediaTypeImageLayerZstd
		w, _ = zstd.NewWriter(&b)
	default:
		t.Fatalf("compression %q", compression)
	}
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l.Blob = b.Bytes()
	return l
}

// Config returns a configuration for layers that runs on this machine.
func Config(layers ...Layer) v1.Image {
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	c.Config.Entrypoint = []string{"/bin/sh"}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.DiffID)
	}
	return c
}

// Push stores an image under "name:tag" and returns the digest of its manifest.
func (r *Registry) Push(t testing.TB, ref string, layers ...Layer) digest.Digest {
	t.Helper()
	return r.PushImage(t, ref, Config(layers...), layers...)
}

// PushImage is Push with a configuration of its own.
func (r *Registry) PushImage(t testing.TB, ref string, config v1.Image, layers ...Layer) digest.Digest {
	t.Helper()
	name, _, _ := strings.Cut(ref, ":")
	raw := marshal(t, config)
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: r.PushBlob(t, name, v1.MediaTypeImageConfig, raw)}
	for _, l := range layers {
		d := r.PushBlob(t, name, l.MediaType, l.Blob)
		d.Annotations = l.Annotations
		m.Layers = append(m.Layers, d)
	}
	return r.PushManifest(t, ref, m.MediaType, marshal(t, m))
}

// PushBlob stores bytes in the repository name.
func (r *Registry) PushBlob(t testing.TB, name, mediaType string, raw []byte) v1.Descriptor {
	t.Helper()
	d := digest.FromBytes(raw)
	r.put(t, http.MethodPost, "/v2/"+name+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", raw)
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

// PushManifest stores any manifest under "name:tag".
func (r *Registry) PushManifest(t testing.TB, ref, mediaType string, raw []byte) digest.Digest {
	t.Helper()
	name, tag, ok := strings.Cut(ref, ":")
	if !ok {
		tag = digest.FromBytes(raw).String()
	}
	r.put(t, http.MethodPut, "/v2/"+name+"/manifests/"+tag, mediaType, raw)
	return digest.FromBytes(raw)
}

// PushIndex stores an index over images that are in the repository already, by
// digest, each for the platform beside it.
func (r *Registry) PushIndex(t testing.TB, ref string, images ...v1.Descriptor) digest.Digest {
	t.Helper()
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: images}
	return r.PushManifest(t, ref, index.MediaType, marshal(t, index))
}

// Manifest returns what is stored under "name:tag", with its media type.
func (r *Registry) Manifest(t testing.TB, ref string) (raw []byte, mediaType string) {
	t.Helper()
	name, tag, _ := strings.Cut(ref, ":")
	w := r.get(t, "/v2/"+name+"/manifests/"+tag)
	return w.body.Bytes(), w.header.Get("Content-Type")
}

// Blob returns the bytes of a blob in the repository name.
func (r *Registry) Blob(t testing.TB, name string, d digest.Digest) []byte {
	t.Helper()
	return r.get(t, "/v2/"+name+"/blobs/"+d.String()).body.Bytes()
}

func (r *Registry) get(t testing.TB, path string) *answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	r.store.ServeHTTP(w, req)
	if w.status >= 300 {
		t.Fatalf("GET %s: %d %s", path, w.status, w.body.String())
	}
	return w
}

func (r *Registry) put(t testing.TB, method, path, contentType string, raw []byte) {
	t.Helper()
	req, err := http.NewRequest(method, path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	w := &answer{header: http.Header{}, status: http.StatusOK}
	r.store.ServeHTTP(w, req)
	if w.status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, w.status, w.body.String())
	}
}

// answer takes what the store says to our own requests.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
