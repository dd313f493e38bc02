package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

func TestWrap(t *testing.T) {
	inner := fmt.Errorf("open device: %w", errdefs.ErrNotFound)
	err := fmt.Errorf("collect: %w", evidence.DriverDevice.Wrap(inner))
	if got := err.Error(); got != "collect: driver/device: open device: not found" {
		t.Errorf("text %q", got)
	}
	if !errdefs.IsNotFound(err) || evidence.CodeOf(err) != evidence.DriverDevice || evidence.CodeOf(err).Leg() != evidence.LegDriver {
		t.Errorf("%v has code %q", err, evidence.CodeOf(err))
	}
	if again := evidence.TransportBusy.Wrap(err); again != err {
		t.Errorf("a second code: %v", again)
	}
	if evidence.DriverDevice.Wrap(nil) != nil || evidence.CodeOf(inner) != "" || evidence.CodeOf(nil) != "" {
		t.Error("a code comes from nowhere")
	}
}

func TestExpired(t *testing.T) {
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	left, leave := context.WithCancel(t.Context())
	leave()
	if err := evidence.DriverTimeout.Expired(late); evidence.CodeOf(err) != evidence.DriverTimeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	if err := evidence.DriverTimeout.Expired(left); evidence.CodeOf(err) != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
}

// constants returns the codes of code.go by their Go names.
func constants(t *testing.T) map[string]evidence.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]evidence.Code{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := v.Type.(*ast.Ident); ok && kind.Name == "Code" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out[v.Names[0].Name] = evidence.Code(text)
		}
		return true
	})
	return out
}

// TestCodesAreDocumented holds source, explanations and document together.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/attestation.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := constants(t)
	if len(codes) < 30 {
		t.Fatalf("code.go has %d codes", len(codes))
	}
	var explained []evidence.Code
	for _, m := range evidence.Meanings() {
		explained = append(explained, m.Code)
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", m.Code, m.Text, m.Remedy); !strings.Contains(string(doc), row) {
			t.Errorf("docs/attestation.md lacks the row\n%s", row)
		}
		if m.Text == "" || m.Remedy == "" || m.Code.Meaning() != m {
			t.Errorf("%s is not explained", m.Code)
		}
	}
	for name, code := range codes {
		if !slices.Contains(explained, code) {
			t.Errorf("%s = %s is not explained", name, code)
		}
	}
	if len(explained) != len(codes) {
		t.Errorf("%d codes, %d explanations", len(codes), len(explained))
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z]+/[a-z]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		if !slices.Contains(explained, evidence.Code(row[1])) {
			t.Errorf("docs/attestation.md explains %s, which the source does not have", row[1])
		}
	}
}

// TestCodesAreUsed keeps the table free of faults that nothing reports.
func TestCodesAreUsed(t *testing.T) {
	var source strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		source.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range constants(t) {
		if !regexp.MustCompile(`\bevidence\.` + name + `\b`).MatchString(source.String()) {
			t.Errorf("no code of the program reports %s", name)
		}
	}
}
