package image

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// readCPIO lists an archive the way the kernel reads it: path to octal mode,
// and the content behind a space for files. It fails on what the kernel would
// refuse, such as a file whose directory has not come yet.
func readCPIO(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	files, at := map[string]string{}, 0
	take := func(n int) string {
		if at+n > len(all) {
			t.Fatalf("archive ends in a record at %d", at)
		}
		s := string(all[at : at+n])
		at += n
		return s
	}
	align := func() { at += -at & 3 }
	for {
		if magic := take(6); magic != "070701" {
			t.Fatalf("magic %q at %d", magic, at)
		}
		var field [13]int
		for i := range field {
			v, err := strconv.ParseUint(take(8), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			field[i] = int(v)
		}
		mode, owner, mtime, size, nameSize := field[1], field[2]+field[3], field[5], field[6], field[11]
		name := strings.TrimSuffix(take(nameSize), "\x00")
		align()
		data := take(size)
		align()
		if name == "TRAILER!!!" {
			return files
		}
		if owner != 0 || mtime != 0 {
			t.Errorf("%s has owner %d and time %d", name, owner, mtime)
		}
		if i := strings.LastIndexByte(name, '/'); i >= 0 && files[name[:i]] == "" {
			t.Errorf("%s comes before its directory", name)
		}
		files[name] = fmt.Sprintf("%o", mode)
		if mode&0o170000 == kindFile {
			files[name] += " " + data
		}
	}
}
