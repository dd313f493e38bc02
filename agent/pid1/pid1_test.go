package pid1

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mainEnv makes this test binary process 1 of a namespace, and in its child the
// agent.
const mainEnv = "COFFER_TEST_MAIN"

// scriptEnv makes this test binary a supervisor of "/bin/sh -c SCRIPT". It is
// a process of its own because it collects every child there is.
const scriptEnv = "COFFER_TEST_SCRIPT"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Role {
		playAgent()
	}
	if os.Getenv(mainEnv) != "" {
		// A console of the real machine is nothing for a test to write on.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Println("make mounts private:", err)
		}
		if err := unix.Mount("none", "/dev", "tmpfs", 0, ""); err != nil {
			fmt.Println("hide /dev:", err)
		}
		if err := unix.Mknod("/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			fmt.Println("make /dev/null:", err)
		}
		if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
			fmt.Println("hide /proc:", err)
		}
		Main()
	}
	script, ok := os.LookupEnv(scriptEnv)
	if !ok {
		os.Exit(m.Run())
	}
	// Orphans of the script come to us, as they come to process 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Println("become subreaper:", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	s := Supervisor{
		Path: "/bin/sh", Argv: []string{"sh", "-c", script},
		Console: os.Stdout, Signals: signals,
		KillRest: func() error {
			fmt.Println("[kill]")
			return unix.Kill(0, unix.SIGUSR1) // the process group, which ignores it if it is us
		},
		Sync:     func() { fmt.Println("[sync]") },
		PowerOff: func() error { fmt.Println("[off]"); return errors.New("still on") },
	}
	signal.Ignore(unix.SIGUSR1)
	fmt.Println("returned:", s.Run())
	os.Exit(0)
}

// mayProtect tries on a process that does not matter.
func mayProtect() bool {
	return exec.Command("/bin/sh", "-c", "echo -1 >/proc/self/oom_score_adj").Run() == nil
}

// playAgent is the child of Main. What it does is told by the name of a file in
// its directory, because its arguments and its environment are Main's.
func playAgent() {
	if _, err := os.Stat("panics"); err == nil {
		panic("the agent's own reason")
	}
	if _, err := os.Stat("orphans"); err == nil {
		makeOrphans()
		os.Exit(0)
	}
	fmt.Println("agent", os.Args, os.Environ())
	os.Exit(5)
}

func supervise(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), scriptEnv+"="+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func TestSupervisor(t *testing.T) {
	const end = ", powering off\n[kill]\n[sync]\n[off]\nreturned: still on\n"
	for _, tc := range []struct{ name, script, want string }{
		{"end", "exit 0", "coffer: agent has ended" + end},
		{"failure", "echo why >&2; exit 3", "why\ncoffer: agent failed with exit status 3" + end},
		{"death", "kill -KILL $$", "coffer: agent was killed by SIGKILL" + end},
		{"empty environment", "/usr/bin/env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=", "coffer: agent failed with exit status 1" + end},
		{"orphans end first", "(true & true & (true &) ) & wait; exit 4", "coffer: agent failed with exit status 4" + end},
		{"an orphan is left", "trap '' USR1; (sleep 0.3; echo late) & exit 0", "coffer: agent has ended, powering off\n[kill]\nlate\n[sync]\n[off]\nreturned: still on\n"},
		{"protected from memory kills", "cat /proc/$$/oom_score_adj; exit 0", "-999\ncoffer: agent has ended" + end},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "protected from memory kills" && !mayProtect() {
				t.Skip("this machine lets nobody lower oom_score_adj")
			}
			out, err := supervise(t, tc.script).CombinedOutput()
			if err != nil || string(out) != tc.want {
				t.Errorf("printed %q, %v, want %q", out, err, tc.want)
			}
		})
	}
}

func TestSignalsReachTheAgent(t *testing.T) {
	cmd := supervise(t, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	var out bytes.Buffer
	buf := make([]byte, 1000)
	for sent := false; ; {
		n, err := stdout.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
		if !sent && strings.Contains(out.String(), "ready") {
			sent = true
			cmd.Process.Signal(unix.SIGTERM)
		}
	}
	cmd.Wait()
	if !strings.Contains(out.String(), "exit status 7") {
		t.Errorf("printed %q, want exit status 7", out.String())
	}
}

func TestAgentThatCannotStart(t *testing.T) {
	var console bytes.Buffer
	order := ""
	s := Supervisor{
		Path: "/no/such/agent", Argv: []string{"agent"}, Console: &console,
		KillRest: func() error { order += "kill "; return unix.ESRCH },
		Sync:     func() { order += "sync " },
		PowerOff: func() error { order += "off"; return nil },
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	if got := console.String(); !strings.Contains(got, "could not be started: no such file") {
		t.Errorf("console = %q", got)
	}
	if order != "kill sync off" {
		t.Errorf("order = %q", order)
	}
}

// Main runs in a pid and mount namespace without /proc, which is as near to the
// guest as a test gets: the kernel hands orphans to this process, and takes its
// power-off for the end of the namespace.
func mainInNamespace(t *testing.T, play string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, play), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
	}
	out, err := cmd.CombinedOutput()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != unix.SIGINT {
		// reboot(2): a power-off in a pid namespace is SIGINT for its process 1.
		t.Errorf("process 1 ended with %v, want SIGINT: %s", err, out)
	}
	return string(out)
}

func TestMainInNamespace(t *testing.T) {
	for _, tc := range []struct {
		play string
		want []string
	}{
		{"ends", []string{"agent [coffer-agent guest-agent] []\n", "agent failed with exit status 5, powering off"}},
		{"panics", []string{"panic: the agent's own reason", "agent failed with exit status 2, powering off"}},
	} {
		t.Run(tc.play, func(t *testing.T) {
			out := mainInNamespace(t, tc.play)
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("printed %q, want %q in it", out, want)
				}
			}
		})
	}
}
