package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the agent may cost. Each container start runs this binary again, so the
// initialisers that come before agent/reexec are paid every time. Raise a number
// only with a reason in the commit.
const (
	maxBinary = 35 << 20
	maxInits  = 330 // packages initialised before a container's init takes over
)

func buildAgent(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("make", "--silent", "--directory=../..", "agent", "BIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make agent: %v\n%s", err, out)
	}
	return filepath.Join(dir, "coffer-agent")
}

func TestBudget(t *testing.T) {
	agent := buildAgent(t)
	st, err := os.Stat(agent)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("binary: %d bytes", st.Size())
	if st.Size() > maxBinary {
		t.Errorf("the binary has %d bytes, more than %d", st.Size(), maxBinary)
	}
	run := exec.Command(agent, "--version")
	run.Env = []string{"GODEBUG=inittrace=1"}
	trace, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	before, _, found := strings.Cut(string(trace), "init github.com/coffer-cc/coffer/agent/reexec ")
	if !found {
		t.Fatal("agent/reexec does not initialise")
	}
	inits := strings.Count(before, "\ninit ") + 1
	t.Logf("initialised before a container's init: %d packages", inits)
	if inits > maxInits {
		t.Errorf("%d packages are initialised before a container's init, more than %d", inits, maxInits)
	}
}

// TestMethodsCanBeDropped fails when a library calls methods by name through
// reflection: the linker then keeps every exported method of the program.
func TestMethodsCanBeDropped(t *testing.T) {
	build := exec.Command("go", "build", "-o", os.DevNull, "-ldflags=-dumpdep", ".")
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.4096s", err, out)
	}
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("<ReflectMethod>")) {
			t.Errorf("reflection keeps all methods: %s", line)
		}
	}
}
