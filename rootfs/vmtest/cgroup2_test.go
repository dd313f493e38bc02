package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/agent/pid1"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// containerProgram is the tests of package agent/container as one program.
const containerProgram = "/container.test"

// containerTests are those that are about cgroups, or about a kernel with more in
// it than the machine that builds may have.
const containerTests = "^TestReal(Cgroupfs|Limits|OOM|Pause|Resources|Unified|Nested|DeviceRules|PrivilegedNeighbour|" +
	"UpdateKeepsDeviceRules|KillInSharedNamespace|UserNamespace)$"

// TestCgroup2 runs the tests of package agent/container as root of a guest,
// where all controllers are those of version 2.
func TestCgroup2(t *testing.T) {
	ownMachine(t)
	tests := filepath.Join(t.TempDir(), "container.test")
	build := exec.Command("go", "test", "-c", "-ldflags", `-s -w -extldflags "-static"`, "-o", tests, "../../agent/container")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tests of containers: %v: %s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "root")
	makeRoot(t, bin)
	for _, name := range []string{"false", "env"} { // programs that hooks in the tests are
		if err := os.Symlink("busybox", filepath.Join(bin, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	text := runInGuest(t, "^TestContainerPackage$", 1024,
		image.Addition{Source: tests, Target: containerProgram}, image.Addition{Source: filepath.Join(bin, "bin"), Target: "/bin"})
	t.Log(testLines(text))
}

// TestContainerPackage is the part of TestCgroup2 inside of the guest.
func TestContainerPackage(t *testing.T) {
	if _, err := os.Stat(containerProgram); err != nil {
		t.Skip("is a part of TestCgroup2, which brings the tests: ", err)
	}
	newGuest(dialInside).waitServing(t)
	root := agentRoot(t)
	cmd := exec.Command(containerProgram, "-test.short", "-test.v", "-test.run="+containerTests)
	cmd.Dir, cmd.Env = "/", []string{"TMPDIR=/tmp", "PATH=/bin"}
	cmd.Stdin = strings.NewReader("") // the null device is out of sight here
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	out, err := cmd.CombinedOutput()
	fmt.Printf("%s\n", out)
	if err != nil {
		t.Error(err)
	}
	if n, want := strings.Count("\n"+string(out), "\n--- PASS: TestReal"), strings.Count(containerTests, "|")+1; n != want {
		t.Errorf("%d tests passed, want %d", n, want)
	}
}

// agentRoot is where the agent has its root. It made one of its own, which this
// process does not share.
func agentRoot(t *testing.T) string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), "\x00"+pid1.Role+"\x00") {
			return filepath.Join(filepath.Dir(file), "root")
		}
	}
	t.Fatal("there is no agent")
	return ""
}

// runInGuest boots an image with the test program as the client inside, and
// returns the console after the machine has switched itself off. The tests that
// match run must have passed.
func runInGuest(t *testing.T, run string, memory int, add ...image.Addition) string {
	t.Helper()
	own := Variant{Add: append(add, testProgram(t))}.Build(t)
	c := sharedConfig(t)
	c.Kernel, c.Initrd = own.Kernel, own.Initrd
	c.Transport, c.Memory = vm.Loopback, memory
	c.Words = append(append(c.Words, passfdWord), insideArgs(run)...)
	start := time.Now()
	machine := Start(t, c)
	defer machine.Stop()
	if err := machine.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	text := machine.Console()
	if !strings.Contains(text, insideResult+"0") {
		t.Errorf("tests inside the guest failed:\n%s", text)
	}
	t.Logf("inside for %v, transport %s", time.Since(start).Round(time.Second), machine.Transport())
	return text
}

// testProgram is this program, for the guest.
func testProgram(t *testing.T) image.Addition {
	t.Helper()
	program := filepath.Join(t.TempDir(), "vmtest")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build test program: %v: %s", err, out)
	}
	return image.Addition{Source: program, Target: insideProgram}
}
