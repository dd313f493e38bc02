package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing/fstest"
	"time"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/encrypt"
)

// source is where images come from: Debian's docker-registry without TLS, and
// the development key broker for the one that is encrypted.
type source struct {
	host   string // of the registry
	broker string // URL
	files  string // the registry's
	cmd    *exec.Cmd
	closer io.Closer
}

// keyPath is the broker's name for the key of the encrypted image.
const keyPath = "bench/key/1"

// openSource starts both and makes the images if they are not there yet. They
// stay in the folder of images, which another run then only reads.
func (b *bench) openSource() (*source, error) {
	dir := filepath.Join(b.images, fmt.Sprintf("v1-%dmb", b.mega))
	complete := filepath.Join(dir, "complete")
	_, err := os.Stat(complete)
	fresh := err != nil
	if fresh {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	s, err := b.startRegistry(filepath.Join(dir, "registry"))
	if err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "key")
	if fresh {
		err = b.fill(s, dir, key)
	}
	if err == nil {
		err = s.startBroker(b, key)
	}
	if err == nil {
		err = s.warm()
	}
	if err == nil {
		err = os.WriteFile(complete, nil, 0o600)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// fill makes the images and brings them to the registry.
func (b *bench) fill(s *source, dir, keyFile string) error {
	began := time.Now()
	l := layout{filepath.Join(dir, "oci")}
	if err := l.write(b.mega * 1e6); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	defer os.RemoveAll(l.dir)
	key := make(secret.Bytes, 32)
	rand.Read(key)
	id, err := resource.ParsePath(keyPath)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	sealed := filepath.Join(dir, "sealed")
	defer os.RemoveAll(sealed)
	if _, err := encrypt.Encrypt(b.ctx, "oci:"+l.dir+":gzip", "oci:"+sealed+":sealed", encrypt.Options{Key: key, KeyID: id}); err != nil {
		return err
	}
	for tag, from := range map[string]string{"gzip": l.dir, "zstd": l.dir, "sealed": sealed} {
		out, err := exec.Command("skopeo", "copy", "--quiet", "--dest-tls-verify=false", "oci:"+from+":"+tag, "docker://"+s.ref(tag)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("push %s: %w: %s", tag, err, out)
		}
	}
	fmt.Fprintf(os.Stderr, "bench: made the images in %s\n", time.Since(began).Round(time.Second))
	return nil
}

func (s *source) ref(tag string) string { return s.host + "/bench:" + tag }

// startRegistry serves a folder.
func (b *bench) startRegistry(dir string) (*source, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &source{host: "127.0.0.1:5000", files: dir} // the network is ours alone
	config := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", dir, s.host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.Command("docker-registry", "serve", config)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(giveUp); ; time.Sleep(10 * time.Millisecond) {
		r, err := http.Get("http://" + s.host + "/v2/")
		if err == nil {
			r.Body.Close()
			return s, nil
		}
		if time.Now().After(end) {
			s.stop()
			return nil, fmt.Errorf("the registry does not answer: %w", err)
		}
	}
}

func (s *source) startBroker(b *bench, keyFile string) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	h, err := devkbs.New(devkbs.Options{
		Resources: fstest.MapFS{keyPath: {Data: key}}, AllowSample: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.closer, s.broker = l, "http://"+l.Addr().String()
	go h.Serve(b.ctx, l, nil) // until the listener is closed
	return nil
}

// warm reads the registry's files once, so that none of the rivals pays for it.
func (s *source) warm() error {
	return filepath.WalkDir(s.files, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

func (s *source) stop() {
	if s.closer != nil {
		s.closer.Close()
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
}
