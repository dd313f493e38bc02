package reexec

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIsChild(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		pipe string
		want bool
	}{
		{"libcontainer's child", []string{"agent", "init"}, "3", true},
		{"word init on the kernel command line", []string{"/init", "init"}, "", false},
		{"plain start", []string{"agent"}, "", false},
		{"variable without the word", []string{"agent", "run"}, "0", false},
		{"no arguments at all", nil, "0", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := isChild(tc.args, tc.pipe); got != tc.want {
				t.Errorf("isChild(%q, %q) = %v, want %v", tc.args, tc.pipe, got, tc.want)
			}
		})
	}
}

// TestMain lets the test binary play PID 1: TestEnvironmentOfPID1 starts it in
// a pid namespace of its own.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		os.Stdout.WriteString("environment: " + strings.Join(os.Environ(), " ") + "\n")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEnvironmentOfPID1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	cmd := exec.Command("/proc/self/exe", "init")
	cmd.Env = []string{"_LIBCONTAINER_INITPIPE=0", "GODEBUG=inittrace=1", "A=b"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run as PID 1: %v: %s", err, out)
	}
	if got := string(out); got != "environment: \n" {
		t.Errorf("PID 1 printed %q, want an empty environment and no trace", got)
	}
}
