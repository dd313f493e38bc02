package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	// The test binary plays the agent: its copies become the containers' inits.
	_ "github.com/coffer-cc/coffer/agent/reexec"
)

func TestRealLife(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	c := l.run(t, "real", shell("echo out; echo err >&2; cat; exit 7"), nil)
	p := start(t, c)
	if err := c.Start(patient(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second Start = %v, want failed precondition", err)
	}
	p.WriteStdin(patient(t), []byte("in"))
	p.CloseStdin()
	if got := string(readAll(t, p.ReadStdout, 100)); got != "out\nin" {
		t.Errorf("stdout = %q", got)
	}
	if got := string(readAll(t, p.ReadStderr, 100)); got != "err\n" {
		t.Errorf("stderr = %q", got)
	}
	wait(t, p, 7)
	wait(t, p, 7)
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Errorf("kill everybody after the end: %v", err)
	}
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	again := l.run(t, "real", shell("true"), nil)
	wait(t, start(t, again), 0)
}

func TestRealProcess(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	for _, tc := range []struct {
		name string
		edit func(*specs.Spec)
		run  string
		want string
	}{
		{"user by numbers", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{3, 4}}
		}, "id -u; id -g; id -G; echo $HOME", "1000\n2000\n2000 3 4\n/home/u\n"},
		{"home of an unknown user", func(s *specs.Spec) { s.Process.User.UID = 77 }, "echo $HOME", "/\n"},
		{"environment without equals sign", func(s *specs.Spec) {
			s.Process.Env = append(s.Process.Env, "BROKEN", "=x", "A=1", "B=")
		}, "echo $A$BROKEN$B", "1\n"},
		{"streams block", nil, "grep flags /proc/self/fdinfo/0; grep flags /proc/self/fdinfo/1", "flags:\t00\nflags:\t01\n"},
		{"no foreign descriptors", nil, "echo /proc/self/fd/*", "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n"},
		{"missing cwd is made", func(s *specs.Spec) { s.Process.Cwd = "/not/there" }, "pwd", "/not/there\n"},
		{"rlimit", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		}, "ulimit -n; ulimit -Hn", "100\n200\n"},
		{"init without capabilities", func(s *specs.Spec) { s.Process.Capabilities = nil },
			"grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"},
		{"no new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"net sysctl of the shared namespace", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ping_group_range": "0 7", "net.no.such.knob": "1", "kernel.msgmax": "9000"}
		}, "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/msgmax", "0\t7\n9000\n"},
		{"its own pid namespace", nil, "echo $$", "1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := l.output(t, shell(tc.run), tc.edit); got != tc.want {
				t.Errorf("printed %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRealExec(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	c := l.run(t, "exec", shell("exec sleep 100"), func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		s.Process.NoNewPrivileges = true
	})
	start(t, c)
	if err := c.Exec(patient(t), "e", shell("grep -E '(CapEff|NoNewPrivs)' /proc/self/status; ulimit -n; ps; exit 3")); err != nil {
		t.Fatal(err)
	}
	e := process(t, c, "e")
	out := string(readAll(t, e.ReadStdout, 4096))
	for _, want := range []string{"CapEff:\t00000000000020e1\n", "NoNewPrivs:\t1\n", "100\n", "sleep 100"} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, want %q in it", out, want)
		}
	}
	readAll(t, e.ReadStderr, 10)
	wait(t, e, 3)
	for _, tc := range []struct {
		name string
		p    *specs.Process
		want string
	}{
		{"missing program", &specs.Process{Args: []string{"no-such-program"}, Cwd: "/"}, "executable file not found in $PATH"},
		{"missing file", &specs.Process{Args: []string{"/no/such"}, Cwd: "/"}, "no such file or directory"},
		{"no program", &specs.Process{Cwd: "/"}, "args are empty"},
		{"relative directory", &specs.Process{Args: []string{"true"}, Cwd: "x"}, "not absolute"},
		{"unknown limit", &specs.Process{Args: []string{"true"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_X"}}}, "RLIMIT_X"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.Exec(patient(t), "bad", tc.p)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Exec = %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestRealCreateFails(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	for _, tc := range []struct {
		name string
		edit func(*specs.Spec)
		want string
	}{
		{"missing program", func(s *specs.Spec) { s.Process.Args = []string{"no-such-program"} }, "executable file not found"},
		{"missing bind source", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/no/source", Type: "bind", Options: []string{"rbind"}})
		}, "/no/source"},
		{"missing namespace", func(s *specs.Spec) { s.Linux.Namespaces[2].Path = "/no/ns" }, "/no/ns"},
		{"forbidden sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "x"} }, "core_pattern"},
		{"sysctl out of bounds", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/core_pattern": "x"} }, "escapes"},
		{"root of the cgroups", func(s *specs.Spec) { s.Linux.CgroupsPath = "/a/../.." }, "is the root"},
		{"no such rootfs", func(s *specs.Spec) { s.Root.Path = "/no/rootfs" }, "/no/rootfs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := l.spec("fails", shell("true"))
			tc.edit(spec)
			_, err := container.New(patient(t), l.driver, "fails", spec, container.Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("New = %v, want %q in it", err, tc.want)
			}
			if dirs := l.cgroupDirs(t); len(dirs) > 0 {
				t.Errorf("cgroups left: %s", dirs)
			}
			c := l.run(t, "fails", shell("true"), nil) // the id is free
			if err := c.Destroy(patient(t)); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := container.New(patient(t), l.driver, "../x", l.spec("x", shell("true")), container.Options{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("New with id ../x = %v, want invalid argument", err)
	}
	l.run(t, "twice", shell("true"), nil)
	if _, err := container.New(patient(t), l.driver, "twice", l.spec("other", shell("true")), container.Options{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("New with a used id = %v, want already exists", err)
	}
}

func TestRealHeldInit(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		c := l.run(t, "held", shell("true"), nil)
		p := process(t, c, "")
		if _, err := p.Wait(brief(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Wait = %v, want to be pending", err)
		}
		if err := c.Signal(patient(t), "", sig); err != nil {
			t.Fatal(err)
		}
		wait(t, p, 137)
		if err := c.Start(patient(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("Start of a dead init = %v, want failed precondition", err)
		}
		if err := c.Destroy(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
	// Start and kill race: whoever wins, nothing hangs.
	for range 10 {
		c := l.run(t, "race", shell("exec sleep 100"), nil)
		ctx := patient(t)
		go c.Signal(ctx, "", unix.SIGKILL)
		if err := c.Start(ctx); err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Fatalf("Start = %v", err)
		}
		wait(t, process(t, c, ""), 137)
		if err := c.Destroy(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRealOutputIsExact(t *testing.T) {
	l := needLab(t)
	want := numbers(200_000)
	if got := l.output(t, shell("exec seq 1 200000"), nil); !bytes.Equal([]byte(got), want) {
		t.Errorf("got %d bytes, want %d, or others", len(got), len(want))
	}
}

func TestRealTerminal(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	sh := shell("tty; stty size; echo $TERM; cat; exit 5")
	sh.Terminal, sh.ConsoleSize = true, &specs.Box{Width: 99, Height: 44}
	c := l.run(t, "tty", sh, nil)
	p := start(t, c)
	until(t, p.ReadStdout, "/dev/pts/0\r\n44 99\r\n")
	if err := c.Exec(patient(t), "e", &specs.Process{Args: []string{"tty"}, Env: sh.Env, Terminal: true, Cwd: "/"}); err != nil {
		t.Fatal(err)
	}
	e := process(t, c, "e")
	wait(t, e, 0) // read only after the exit
	if got := string(readAll(t, e.ReadStdout, 100)); got != "/dev/pts/1\r\n" {
		t.Errorf("exec printed %q", got)
	}
	p.CloseStdin()
	readAll(t, p.ReadStdout, 100)
	wait(t, p, 5)
}

// Everybody dies, even in a pid namespace that the container shares and after
// its init was collected, and nobody else does.
func TestRealKillInSharedNamespace(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	pause := l.run(t, "pause", shell("while :; do sleep 0.05; done"), nil)
	start(t, pause)
	c := l.run(t, "member", shell("sleep 100 & sleep 100 & exit 0"), func(s *specs.Spec) {
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.PIDNamespace {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", pause.InitPid())
			}
		}
	})
	wait(t, start(t, c), 0)
	if got := l.pids(t, "member"); got != 2 {
		t.Fatalf("%d processes, want the 2 orphans", got)
	}
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := pause.State(); got != container.StateRunning {
		t.Errorf("pause is %s, want running", got)
	}
}

// pids counts the processes in the container's cgroup.
func (l *lab) pids(t testing.TB, id string) int {
	t.Helper()
	files, _ := filepath.Glob("/sys/fs/cgroup/devices" + l.cgroup + "/" + id + "/cgroup.procs")
	files = append(files, "/sys/fs/cgroup"+l.cgroup+"/"+id+"/cgroup.procs")
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func TestRealSeccomp(t *testing.T) {
	l := needLab(t)
	out := l.output(t, shell("kill -0 1; echo $?"), func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"kill"}, Action: specs.ActErrno}},
		}
	})
	if !strings.Contains(out, "1\n") || !strings.Contains(out, "not permitted") {
		t.Errorf("a forbidden call printed %q", out)
	}
}

func TestRealIgnoredSignals(t *testing.T) {
	l := needLab(t)
	// The Go runtime of the child resets all signals but these two by itself.
	ignored := []os.Signal{unix.SIGHUP, unix.SIGINT}
	signal.Ignore(ignored...)
	defer func() { // Reset does not undo Ignore
		undo := make(chan os.Signal, 1)
		signal.Notify(undo, ignored...)
		signal.Stop(undo)
	}()
	grep := &specs.Process{Args: []string{"/bin/grep", "SigIgn", "/proc/self/status"}}
	out := l.output(t, grep, nil)
	if out != "SigIgn:\t0000000000000000\n" {
		t.Errorf("with an agent that ignores signals: %q", out)
	}
}

func TestRealKillDuringStalledWrite(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	c := l.run(t, "stall", shell("exec sleep 100"), nil)
	p := start(t, c)
	ctx := patient(t)
	stalled := make(chan error, 1)
	go func() {
		_, err := p.WriteStdin(ctx, make([]byte, 1<<20))
		stalled <- err
	}()
	if err := c.Signal(ctx, "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, p, 137)
	if err := <-stalled; !errdefs.IsNotFound(err) {
		t.Errorf("stalled write = %v, want not found", err)
	}
}

func TestRealGrandchildHoldsThePipe(t *testing.T) {
	l := needLab(t)
	c := l.run(t, "grand", shell("exec sleep 100"), nil)
	start(t, c)
	if err := c.Exec(patient(t), "e", shell("sleep 100 & echo last words")); err != nil {
		t.Fatal(err)
	}
	e := process(t, c, "e")
	if got := string(readAll(t, e.ReadStdout, 100)); got != "last words\n" {
		t.Errorf("stdout = %q", got)
	}
	wait(t, e, 0)
}

func lives(t testing.TB, l *lab, id string) {
	c := l.run(t, id, shell("read line; echo $line"), nil)
	p := start(t, c)
	if err := c.Exec(patient(t), "e", shell("exit 2")); err != nil {
		t.Errorf("%s: %v", id, err)
		return
	}
	wait(t, process(t, c, "e"), 2)
	p.WriteStdin(patient(t), []byte(id+"\n"))
	if got := string(readAll(t, p.ReadStdout, 100)); got != id+"\n" {
		t.Errorf("%s printed %q", id, got)
	}
	wait(t, p, 0)
	if err := c.Destroy(patient(t)); err != nil {
		t.Errorf("%s: %v", id, err)
	}
}

func TestRealManyLives(t *testing.T) {
	sequential, parallel := 200, 32
	if testing.Short() {
		sequential, parallel = 10, 4
	}
	l := needLab(t)
	lives(t, l, "warm-up")
	sameFiles(t)
	for n := range sequential {
		lives(t, l, fmt.Sprint("seq-", n))
	}
	var all sync.WaitGroup
	for n := range parallel {
		all.Go(func() { lives(t, l, fmt.Sprint("par-", n)) })
	}
	all.Wait()
	left, err := filepath.Glob(filepath.Join(t.TempDir(), "..", "*", "*-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("state left: %v, %v", left, err)
	}
}
