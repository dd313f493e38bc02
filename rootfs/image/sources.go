package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// A mirror is a Debian archive that the machine already trusts: where it is
// and which keys vouch for it, in the words of the machine's own sources.
type mirror struct {
	uris     string
	signedBy string // empty means apt's global keys
	trusted  string // "yes" where the machine takes it without signatures
	suites   []string
}

// findMirror picks the archive that serves the machine's own release. Other
// suites of the same archive are then asked for under the same keys. etc is
// the /etc directory to look in.
func findMirror(etc string) (mirror, error) {
	all, err := readSources(filepath.Join(etc, "apt"))
	if err != nil {
		return mirror{}, err
	}
	codename := releaseCodename(filepath.Join(etc, "os-release"))
	for _, m := range all {
		if slices.Contains(m.suites, codename) {
			return m, nil
		}
	}
	for _, m := range all {
		if slices.Contains(m.suites, "stable") {
			return m, nil
		}
	}
	return mirror{}, fmt.Errorf("no apt source in %s serves suite %q: %w", filepath.Join(etc, "apt"), codename, errdefs.ErrNotFound)
}

// readSources collects binary sources of both spellings, in apt's order: the
// main list, then the parts by name.
func readSources(apt string) ([]mirror, error) {
	parts, err := filepath.Glob(filepath.Join(apt, "sources.list.d", "*"))
	if err != nil {
		return nil, fmt.Errorf("list apt sources: %w", err)
	}
	var all []mirror
	for _, path := range append([]string{filepath.Join(apt, "sources.list")}, parts...) {
		ext := filepath.Ext(path)
		if ext != ".list" && ext != ".sources" {
			continue
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt sources: %w", err)
		}
		if ext == ".list" {
			all = append(all, parseList(string(text))...)
			continue
		}
		stanzas, err := parseStanzas(strings.NewReader(string(text)))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, fromStanzas(stanzas)...)
	}
	return all, nil
}

func fromStanzas(stanzas []stanza) []mirror {
	var all []mirror
	for _, s := range stanzas {
		if !slices.Contains(strings.Fields(s["types"]), "deb") || strings.EqualFold(s["enabled"], "no") {
			continue
		}
		all = append(all, mirror{uris: s["uris"], signedBy: s["signed-by"], trusted: s["trusted"], suites: strings.Fields(s["suites"])})
	}
	return all
}

// parseList reads the one-line form: deb [option=value …] URI suite component….
func parseList(text string) []mirror {
	var all []mirror
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == strings.TrimLeft(rest, " \t[") {
			continue
		}
		rest = strings.TrimSpace(rest)
		options := ""
		if strings.HasPrefix(rest, "[") {
			options, rest, _ = strings.Cut(rest[1:], "]")
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			continue
		}
		m := mirror{uris: words[0], suites: words[1:2]}
		for _, o := range strings.Fields(options) {
			if v, ok := strings.CutPrefix(o, "signed-by="); ok {
				m.signedBy = strings.ReplaceAll(v, ",", " ")
			}
			if v, ok := strings.CutPrefix(o, "trusted="); ok {
				m.trusted = v
			}
		}
		all = append(all, m)
	}
	return all
}

// releaseCodename reads VERSION_CODENAME; empty when the file does not say.
func releaseCodename(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return ""
}
