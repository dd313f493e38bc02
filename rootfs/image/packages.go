package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// errChecksum ends a fetch: a file under the pinned name and version with
// other content is not a dropped version but a changed one.
var errChecksum = fmt.Errorf("wrong checksum: %w", errdefs.ErrFailedPrecondition)

// A packageFile is a Debian package on disk whose content is vouched for: by
// the lock's checksum, or by apt's signatures where the lock is out of date.
type packageFile struct {
	Path, Name, Version, SHA256 string
}

// A Store fetches the packages that packages.lock names and keeps them.
type Store struct {
	// Root is the source tree: it holds rootfs/packages.lock, and .cache for
	// downloads.
	Root string
	// Progress receives one line per slow step; nil drops them.
	Progress func(line string)
	// etc is where the machine's apt sources are; empty means /etc.
	etc string
}

func (s *Store) say(format string, args ...any) {
	if s.Progress != nil {
		s.Progress(fmt.Sprintf(format, args...))
	}
}

func (s *Store) cache() string { return filepath.Join(s.Root, ".cache") }

// fetch returns the package pinned for a use. Concurrent callers, also in
// other processes, take turns.
func (s *Store) fetch(ctx context.Context, use string) (packageFile, error) {
	p, err := loadPin(s.Root, use)
	if err != nil {
		return packageFile{}, err
	}
	return s.fetchPin(ctx, p)
}

// fetchBeside returns the package pinned for a use in the version of another
// one, which may be newer than the lock's because the mirror has dropped that.
func (s *Store) fetchBeside(ctx context.Context, use string, other packageFile) (packageFile, error) {
	p, err := loadPin(s.Root, use)
	if err != nil {
		return packageFile{}, err
	}
	if p.version != other.Version {
		p.candidate, p.seriesVers = candidate{}, other.Version
	}
	return s.fetchPin(ctx, p)
}

// fetchPin returns the package of a pin, or what takes its place. A pin without
// a candidate is for the newest of its series.
func (s *Store) fetchPin(ctx context.Context, p pin) (packageFile, error) {
	unlock, err := lockDir(s.cache())
	if err != nil {
		return packageFile{}, err
	}
	defer unlock()
	if got, ok := s.kept(p.candidate); ok {
		return got, nil
	}
	m, err := findMirror(cmp.Or(s.etc, "/etc"))
	if err != nil {
		return packageFile{}, err
	}
	a, err := openApt(s.cache(), m, p.suite)
	if err != nil {
		return packageFile{}, err
	}
	s.say("look up %s in suite %s", cmp.Or(p.name, p.seriesName), p.suite)
	if err := a.update(ctx); err != nil {
		return packageFile{}, err
	}
	if p.candidate == (candidate{}) {
		return s.fetchNewest(ctx, a, p, nil)
	}
	got, err := s.download(ctx, a, p.candidate)
	if err == nil || errors.Is(err, errChecksum) {
		return got, err
	}
	return s.fetchNewest(ctx, a, p, err)
}

// fetchNewest takes the newest of the pin's series, with a cause because the
// pinned version could not be had. When that is the same version, the cause was
// another one.
func (s *Store) fetchNewest(ctx context.Context, a *apt, p pin, cause error) (packageFile, error) {
	c, err := a.newest(ctx, p)
	switch {
	case err != nil && cause != nil:
		return packageFile{}, fmt.Errorf("%w; then: %w", cause, err)
	case err != nil:
		return packageFile{}, err
	case c.name == p.name && c.version == p.version:
		return packageFile{}, cause
	case cause != nil:
		s.say("the mirror has dropped %s %s; taking %s %s", p.name, p.version, c.name, c.version)
	}
	if got, ok := s.kept(c); ok {
		return got, nil
	}
	return s.download(ctx, a, c)
}

// kept finds an earlier download of exactly this candidate.
func (s *Store) kept(c candidate) (packageFile, bool) {
	path := s.keptPath(c)
	sum, err := fileSum(path)
	return packageFile{path, c.name, c.version, sum}, err == nil && sum == c.sha256
}

func (s *Store) keptPath(c candidate) string {
	return filepath.Join(s.cache(), "packages", c.sha256+".deb")
}

// download fetches into a scratch directory and keeps the file under its
// checksum, so that a broken download never takes a good name.
func (s *Store) download(ctx context.Context, a *apt, c candidate) (packageFile, error) {
	packages := filepath.Join(s.cache(), "packages")
	if err := os.MkdirAll(packages, 0o755); err != nil {
		return packageFile{}, fmt.Errorf("make package cache: %w", err)
	}
	scratch, err := os.MkdirTemp(packages, "download-")
	if err != nil {
		return packageFile{}, fmt.Errorf("make download directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	s.say("download %s %s", c.name, c.version)
	path, err := a.download(ctx, c, scratch)
	if err != nil {
		return packageFile{}, err
	}
	sum, err := fileSum(path)
	if err != nil {
		return packageFile{}, err
	}
	if sum != c.sha256 {
		return packageFile{}, fmt.Errorf("package %s %s has sha256 %s, want %s: %w", c.name, c.version, sum, c.sha256, errChecksum)
	}
	if err := os.Rename(path, s.keptPath(c)); err != nil {
		return packageFile{}, fmt.Errorf("keep package %s: %w", c.name, err)
	}
	return packageFile{s.keptPath(c), c.name, c.version, sum}, nil
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open file to checksum: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("checksum %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lockDir keeps other builds out of a cache directory until the returned
// function is called. The kernel drops the lock of a process that dies.
func lockDir(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open cache lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { f.Close() }, nil
}
