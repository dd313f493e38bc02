package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	passwdText = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:44::/srv:/bin/false\n"
	groupText  = "root:x:0:\ndata:x:55:\nextra:x:66:www,other\n"
)

// put makes a file, or a link when text begins with an arrow, a pipe when it is
// "|" and a directory when it is "/".
func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	target, link := strings.CutPrefix(text, "-> ")
	switch {
	case err != nil:
	case link:
		err = os.Symlink(target, path)
	case text == "|":
		err = unix.Mkfifo(path, 0o644)
	case text == "/":
		err = os.Mkdir(path, 0o755)
	default:
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLookUp(t *testing.T) {
	www := specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{66}}
	outside := t.TempDir()
	put(t, outside, "passwd", "www:x:7:7::/:/\n")
	plain := map[string]string{"etc/passwd": passwdText, "etc/group": groupText}
	for _, tc := range []struct {
		name, user string
		files      map[string]string
		want       specs.User
		bad        bool
	}{
		{name: "name", user: "www", files: plain, want: www},
		{name: "name and group", user: "www:data", files: plain, want: specs.User{UID: 33, GID: 55}},
		{name: "name and number", user: "www:7", files: plain, want: specs.User{UID: 33, GID: 7}},
		{name: "number and name", user: "7:data", files: plain, want: specs.User{UID: 7, GID: 55}},
		{name: "numbers", user: "7:8", files: plain, want: specs.User{UID: 7, GID: 8}},
		{name: "number of a user", user: "33", files: plain, want: www},
		{name: "unknown name", user: "app", files: plain, bad: true},
		{name: "no files, number", user: "7", want: specs.User{UID: 7}},
		{name: "no files, numbers", user: "7:8", want: specs.User{UID: 7, GID: 8}},
		{name: "no files, name", user: "www", bad: true},
		{name: "no groups", user: "www", files: map[string]string{"etc/passwd": passwdText}, want: specs.User{UID: 33, GID: 44}},
		{name: "etc is a file", user: "7", files: map[string]string{"etc": "x"}, want: specs.User{UID: 7}},
		{name: "link inside", user: "www", files: map[string]string{"etc/passwd": "-> ../usr/passwd", "usr/passwd": passwdText, "etc/group": groupText}, want: www},
		{name: "link from the top", user: "www", files: map[string]string{"etc/passwd": "-> /usr/passwd", "usr/passwd": passwdText, "etc/group": groupText}, want: www},
		{name: "link that leads out", user: "www", files: map[string]string{"etc/passwd": "-> " + outside + "/passwd"}, bad: true},
		{name: "link that climbs out", user: "www", files: map[string]string{"etc/passwd": "-> ../../../../../../../.." + outside + "/passwd"}, bad: true},
		{name: "directory link that leads out", user: "www", files: map[string]string{"etc": "-> " + outside}, bad: true},
		{name: "link to a process's files", user: "www", files: map[string]string{"etc/passwd": "-> /proc/self/root/etc/passwd"}, bad: true},
		{name: "link to itself", user: "www", files: map[string]string{"etc/passwd": "-> passwd"}, bad: true},
		{name: "pipe", user: "7", files: map[string]string{"etc/passwd": "|"}, bad: true},
		{name: "directory", user: "7", files: map[string]string{"etc/passwd": "/"}, bad: true},
		{name: "huge", user: "www", files: map[string]string{"etc/passwd": strings.Repeat("#\n", 3<<20) + passwdText}, bad: true},
		{name: "long line", user: "www", files: map[string]string{"etc/passwd": strings.Repeat("x", 1<<20) + "\n" + passwdText}, bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tc.files {
				put(t, root, name, text)
			}
			got, err := lookUp(tc.user, root)
			if tc.bad != (err != nil) {
				t.Fatalf("%+v, %v", got, err)
			}
			if got.UID != tc.want.UID || got.GID != tc.want.GID || !slices.Equal(got.AdditionalGids, tc.want.AdditionalGids) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
