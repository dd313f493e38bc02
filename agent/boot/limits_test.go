package boot

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimits runs itself in a child, since limits cannot be taken back.
func TestLimits(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to raise limits")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestLimitsChild$", "-test.v", "limits-child")
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLimitsChild(t *testing.T) {
	if os.Args[len(os.Args)-1] != "limits-child" {
		t.Skip("runs in the child of TestLimits")
	}
	if err := habits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), ServiceSteps()); err != nil {
		t.Fatal(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable %d, %v", dumpable, err)
	}
	// Programs are still found and run, and this one by its own path: it is
	// how a container's init starts.
	for _, args := range [][]string{{"sh", "-c", "ulimit -c; ulimit -Hc"}, {"/proc/self/exe", "-test.list=^$"}} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if args[0] == "sh" && string(out) != "0\n0\n" {
			t.Errorf("limits of a child: %q", out)
		}
	}
	if _, err := os.ReadFile("/proc/self/environ"); err != nil {
		t.Errorf("own files in /proc: %v", err)
	}
}
