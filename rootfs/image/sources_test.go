package image

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestFindMirror(t *testing.T) {
	const release = "ID=debian\nVERSION_CODENAME=bookworm\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  mirror
		err   error
	}{
		{
			name: "deb822 with a key",
			files: map[string]string{"apt/sources.list.d/a.sources": `# a comment
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
# another
Components: main
Signed-By: /usr/share/keyrings/k.gpg
`},
			want: mirror{"http://mirror.test/debian", "/usr/share/keyrings/k.gpg", "", []string{"bookworm", "bookworm-updates"}},
		},
		{
			name:  "key inside the file",
			files: map[string]string{"apt/sources.list.d/a.sources": "Types: deb\nURIs: http://m.test/d\nSuites: bookworm\nSigned-By:\n -----BEGIN\n .\n abc\n"},
			want:  mirror{"http://m.test/d", "\n -----BEGIN\n .\n abc", "", []string{"bookworm"}},
		},
		{
			name:  "one-line with options",
			files: map[string]string{"apt/sources.list": "deb-src http://src.test/d bookworm main\ndeb [arch=amd64 signed-by=/a.gpg,/b.gpg trusted=yes] http://m.test/d bookworm main # it\n"},
			want:  mirror{"http://m.test/d", "/a.gpg /b.gpg", "yes", []string{"bookworm"}},
		},
		{
			name: "the release's own archive, not the first",
			files: map[string]string{
				"apt/sources.list":             "deb http://security.test/d bookworm-security main\n",
				"apt/sources.list.d/a.sources": "Types: deb\nURIs: http://off.test/d\nSuites: bookworm\nEnabled: no\n\nTypes: deb\nURIs: http://on.test/d\nSuites: bookworm\n",
				"apt/sources.list.d/b.old":     "deb http://old.test/d bookworm main\n",
			},
			want: mirror{"http://on.test/d", "", "", []string{"bookworm"}},
		},
		{
			name:  "none",
			files: map[string]string{"apt/sources.list": "deb http://m.test/d nodistro main\n"},
			err:   errdefs.ErrNotFound,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			etc := t.TempDir()
			writeTree(t, etc, map[string]string{"os-release": release})
			writeTree(t, etc, tc.files)
			got, err := findMirror(etc)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestParseStanzasRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"continuation of nothing": " a: b\n",
		"no field name":           "a: b\nnonsense\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseStanzas(strings.NewReader(text)); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("error %v, want %v", err, errdefs.ErrInvalidArgument)
			}
		})
	}
}

func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
