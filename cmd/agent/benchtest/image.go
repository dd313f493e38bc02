package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is a folder in OCI image layout with one layer of made-up files, the
// same files under each tag.
type layout struct{ dir string }

// write makes the image under the tags gzip, compressed as `docker push` does,
// until that layer has about size bytes, and zstd.
func (l layout) write(size int64) error {
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	archive, err := os.CreateTemp(l.dir, "tar")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	plain, err := l.blob(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.DefaultCompression) },
		func(w io.Writer, compressed *int64) error {
			buffered := bufio.NewWriterSize(archive, 1<<20)
			if err := makeFiles(io.MultiWriter(w, buffered), compressed, size); err != nil {
				return err
			}
			return buffered.Flush()
		})
	if err != nil {
		return err
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return err
	}
	packed, err := l.blob(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		func(w io.Writer, _ *int64) error { _, err := io.Copy(w, archive); return err })
	if err != nil {
		return err
	}
	plain.desc.MediaType, packed.desc.MediaType = v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd
	return l.index(map[string]layer{"gzip": plain, "zstd": packed})
}

// layer is a compressed archive.
type layer struct {
	desc   v1.Descriptor
	diffID digest.Digest
	bytes  int64 // uncompressed
}

// blob stores what fill writes, compressed.
func (l layout) blob(compress func(io.Writer) (io.WriteCloser, error), fill func(w io.Writer, compressed *int64) error) (layer, error) {
	f, err := os.CreateTemp(l.dir, "blob")
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	below, above := &counter{Hash: sha256.New()}, &counter{Hash: sha256.New()}
	z, err := compress(io.MultiWriter(f, below))
	if err != nil {
		return layer{}, err
	}
	if err := fill(io.MultiWriter(z, above), &below.n); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	d := digest.NewDigest(digest.SHA256, below)
	out := layer{v1.Descriptor{Digest: d, Size: below.n}, digest.NewDigest(digest.SHA256, above), above.n}
	return out, os.Rename(f.Name(), filepath.Join(l.dir, "blobs/sha256", d.Encoded()))
}

type counter struct {
	hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// index writes configurations, manifests and the index that names the tags.
func (l layout) index(tags map[string]layer) error {
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for tag, layer := range tags {
		config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
		config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.diffID}}
		desc, err := l.document(v1.MediaTypeImageConfig, config)
		if err != nil {
			return err
		}
		desc, err = l.document(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: desc, Layers: []v1.Descriptor{layer.desc},
		})
		if err != nil {
			return err
		}
		desc.Annotations = map[string]string{v1.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, desc)
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, v1.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, v1.ImageIndexFile), text, 0o644)
}

func (l layout) document(mediaType string, v any) (v1.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := digest.FromBytes(text)
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(text))},
		os.WriteFile(filepath.Join(l.dir, "blobs/sha256", d.Encoded()), text, 0o644)
}

// makeFiles writes an archive of made-up files, and a program for a container to
// run, until *compressed has reached size. The same size makes the same files.
func makeFiles(w io.Writer, compressed *int64, size int64) error {
	out := tar.NewWriter(w)
	put := func(h tar.Header, body []byte) error {
		h.Size, h.ModTime = int64(len(body)), time.Unix(1700000000, 0)
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		_, err := out.Write(body)
		return err
	}
	program, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = put(tar.Header{Name: "bin/true", Mode: 0o755}, program)
	}
	m := newMaker()
	for n := 0; err == nil && *compressed < size; n++ {
		dir := fmt.Sprintf("usr/d%02d/d%04d/", n/4096, n/64)
		if n%64 == 0 {
			err = put(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
		}
		if err == nil {
			err = put(tar.Header{Name: fmt.Sprintf("%sf%06d", dir, n), Mode: 0o644}, m.file())
		}
	}
	if err != nil {
		return err
	}
	return out.Close()
}

// maker makes contents that compress as those of images do, to a third or so.
type maker struct {
	rand  *rand.ChaCha8
	words [2048][]byte
	codes [1024][]byte
	buf   []byte
}

func newMaker() *maker {
	m := &maker{rand: rand.NewChaCha8([32]byte{'c', 'o', 'f', 'f', 'e', 'r'})}
	for i := range m.words {
		for range 3 + m.below(9) {
			m.words[i] = append(m.words[i], 'a'+byte(min(m.below(26), m.below(26))))
		}
		m.words[i] = append(m.words[i], ' ')
	}
	for i := range m.codes {
		for range 4 + m.below(12) {
			m.codes[i] = append(m.codes[i], byte(m.below(256)))
		}
	}
	return m
}

func (m *maker) below(n int) int { return int(m.rand.Uint64() % uint64(n)) }

// file returns the contents of one file, valid until the next: mostly small, the
// bytes mostly in large ones; text and code in equal parts, a tenth noise.
func (m *maker) file() []byte {
	size := 1<<10 + m.below(15<<10)
	switch n := m.below(100); {
	case n < 4:
		size = 1<<20 + m.below(20<<20)
	case n < 30:
		size = 16<<10 + m.below(240<<10)
	}
	m.buf = m.buf[:0]
	kind := m.below(20)
	for len(m.buf) < size {
		r := m.rand.Uint64()
		low := min(r&0xffff, r>>16&0xffff, r>>32&0xffff) // small numbers are frequent
		switch {
		case kind < 9:
			m.buf = append(m.buf, m.words[low%2048]...)
		case kind < 18:
			m.buf = append(append(m.buf, m.codes[low%1024]...), byte(r>>48)) // an operand
		default:
			m.buf = binary.LittleEndian.AppendUint64(m.buf, r)
		}
	}
	return m.buf[:size]
}
