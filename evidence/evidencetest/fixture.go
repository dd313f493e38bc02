package evidencetest

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"io/fs"
	"strings"
	"testing"
)

// fixtures are recorded from hardware; testdata/ORIGIN.md says where.
//
//go:embed testdata
var fixtures embed.FS

// Fixture returns a recorded piece of evidence by its name below testdata. One
// whose name ends in .gz is unpacked.
func Fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := fixtures.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

// Fixtures lists the names of all of them.
func Fixtures(t testing.TB) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(fixtures, "testdata", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != "testdata/ORIGIN.md" {
			names = append(names, strings.TrimPrefix(path, "testdata/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
