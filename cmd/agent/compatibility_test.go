package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// row is a line of docs/compatibility.md.
type row struct {
	number               int
	status, proof, title string
}

const (
	proven         = "works"
	provenRecorded = "works (sysfs recording)"
	differs        = "differs on purpose"
	isMissing      = "not here"
)

// features is the number of rows; each is one of the reference agent's.
const features = 180

func compatibilityRows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 5 {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(cells[0], "| "))
		if err != nil {
			continue
		}
		rows = append(rows, row{n, cells[3], strings.TrimSuffix(cells[4], " |"), cells[1]})
	}
	return rows
}

// namedTest is how the document names a test: package.TestName.
var namedTest = regexp.MustCompile("`([a-z0-9/-]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestCompatibility holds the document to its word: every row has a status,
// and what works is proven by tests that exist. That they ran and passed is
// checked behind the whole run, by .ci/proven.
func TestCompatibility(t *testing.T) {
	rows := compatibilityRows(t)
	if len(rows) != features {
		t.Errorf("%d rows, want %d", len(rows), features)
	}
	exist := testsOf(t, "../..")
	for i, r := range rows {
		if r.number != i+1 {
			t.Fatalf("row %d has the number %d", i+1, r.number)
		}
		named := namedTest.FindAllStringSubmatch(r.proof, -1)
		switch r.status {
		case proven, provenRecorded:
			if len(named) == 0 {
				t.Errorf("row %d, %s: no test is named", r.number, r.title)
			}
		case differs, isMissing:
			if len(strings.Fields(r.proof)) < 3 {
				t.Errorf("row %d, %s: no reason", r.number, r.title)
			}
		default:
			t.Errorf("row %d: status %q", r.number, r.status)
		}
		for _, n := range named {
			if !exist[n[1]+"."+n[2]] {
				t.Errorf("row %d, %s: there is no test %s in %s", r.number, r.title, n[2], n[1])
			}
		}
	}
}

// testsOf finds the tests of the tree, package.Name, by what the source says.
func testsOf(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				found[dir+"."+fn.Name.Name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
