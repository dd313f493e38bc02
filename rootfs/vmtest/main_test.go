package vmtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getpid() == 1:
		fmt.Println("vmtest:", becomeAgent())
		return
	case inside():
		runInside(m)
		return
	}
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		code = 1
	}
	os.Exit(code)
}

// TestInside runs tests in the guest, over vsock loopback: all that use the
// shared machine where the host has no other way, else one, so that this way
// does not rot.
func TestInside(t *testing.T) {
	if inside() {
		t.Skip("this is the inside")
	}
	run := "^TestServing$"
	if chosenTransport(t) == vm.Loopback {
		run = "."
	}
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "vmtest")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build test program: %v: %s", err, out)
	}
	o := b.options
	o.Add = []image.Addition{{Source: program, Target: insideProgram}}
	o.Out = t.TempDir()
	if _, err := b.store.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	c := sharedConfig(t)
	c.Kernel, c.Initrd = filepath.Join(o.Out, "vmlinuz"), filepath.Join(o.Out, "initrd.img")
	c.Transport, c.Memory = vm.Loopback, 768
	c.Words = append(c.Words, insideArgs(run)...)
	machine := Start(t, c)
	defer machine.Stop()
	if err := machine.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	text := machine.Console()
	if !strings.Contains(text, insideResult+"0") {
		t.Errorf("tests inside the guest failed:\n%s", text)
	}
	t.Logf("transport %s:\n%s", machine.Transport(), testLines(text))
}

// testLines picks what the testing package printed from a console.
func testLines(console string) string {
	var kept []string
	for line := range strings.Lines(console) {
		if s := strings.TrimSpace(line); strings.HasPrefix(s, "--- ") || strings.Contains(s, "_test.go:") {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, "\n")
}
