package vmtest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getpid() == 1 && flag.Arg(0) == extendWord:
		fmt.Println("vmtest:", extendThenBoot())
		return
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
	run := "^(TestServing|TestStreamsPastTheAPI)$"
	if chosenTransport(t) == vm.Loopback {
		run = "."
	}
	t.Log(testLines(runInGuest(t, run, 768)))
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
