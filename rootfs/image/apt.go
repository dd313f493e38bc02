package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// apt runs the machine's apt over one suite in a directory of its own, so that
// asking for a further suite changes nothing on the machine. Proxies and
// other settings of the machine's apt.conf stay in force.
type apt struct {
	dir   string // lists, caches and the single source
	suite string
}

// A candidate is one version of a package, with the checksum that the lock or
// the signed index gives it.
type candidate struct{ name, version, sha256 string }

// openApt prepares the private directory of a suite.
func openApt(cache string, m mirror, suite string) (*apt, error) {
	a := &apt{dir: filepath.Join(cache, "apt", suite), suite: suite}
	for _, d := range []string{"parts", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make private apt directory: %w", err)
		}
	}
	source := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nTargets: Packages\n", m.uris, suite)
	if m.signedBy != "" {
		source += "Signed-By: " + m.signedBy + "\n"
	}
	if m.trusted != "" {
		source += "Trusted: " + m.trusted + "\n"
	}
	if err := os.WriteFile(filepath.Join(a.dir, "parts", "suite.sources"), []byte(source), 0o644); err != nil {
		return nil, fmt.Errorf("write private apt source: %w", err)
	}
	return a, nil
}

// update fetches the signed index of the suite.
func (a *apt) update(ctx context.Context) error {
	_, err := a.run(ctx, a.dir, "apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
	return err
}

// newest is the package of a pin's series with the highest version.
func (a *apt) newest(ctx context.Context, p pin) (candidate, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "show", p.seriesName)
	if err != nil {
		return candidate{}, err
	}
	records, err := parseStanzas(bytes.NewReader(out))
	if err != nil {
		return candidate{}, fmt.Errorf("read apt's records of %s: %w", p.seriesName, err)
	}
	var best candidate
	for _, r := range records {
		if !matches(p.seriesName, r["package"]) || !matches(p.seriesVers, r["version"]) {
			continue
		}
		if best.version == "" || newer(ctx, r["version"], best.version) {
			best = candidate{r["package"], r["version"], r["sha256"]}
		}
	}
	if best.version == "" {
		return candidate{}, fmt.Errorf("suite %s has no %s of version %s: %w", a.suite, p.seriesName, p.seriesVers, errdefs.ErrNotFound)
	}
	return best, nil
}

func matches(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok
}

func newer(ctx context.Context, a, b string) bool {
	return exec.CommandContext(ctx, "dpkg", "--compare-versions", a, "gt", b).Run() == nil
}

// download fetches one version of a package into an empty directory and says
// what file it became. Apt itself compares the file with the signed index.
func (a *apt) download(ctx context.Context, c candidate, dir string) (string, error) {
	if _, err := a.run(ctx, dir, "apt-get", "download", "-q", c.name+"="+c.version); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt left %d packages after download of %s: %w", len(found), c.name, errdefs.ErrUnavailable)
	}
	return found[0], nil
}

func (a *apt) run(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	for _, o := range []string{
		"Dir::Etc::SourceList=/dev/null",
		"Dir::Etc::SourceParts=" + filepath.Join(a.dir, "parts"),
		"Dir::Etc::Preferences=/dev/null",
		"Dir::Etc::PreferencesParts=/dev/null",
		"Dir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + filepath.Join(a.dir, "cache"),
		// The download user of apt may not enter the checkout.
		"APT::Sandbox::User=root",
	} {
		args = append(args, "-o", o)
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("run %s: %w", tool, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s in suite %s: %w: %s", tool, args[0], a.suite, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
