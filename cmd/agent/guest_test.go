package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/logging"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/rpc"
)

// guestEnv marks the copy of this test that runs as a guest.
const guestEnv = "COFFER_TEST_GUEST"

// inGuest gives a test namespaces of its own, because the agent's paths below
// /run, its network and its cgroups are those of a whole machine. The test runs
// again in a copy of this program, which is told true; the first one gets false
// and has nothing left to do.
func inGuest(t *testing.T) bool {
	t.Helper()
	if os.Getenv(guestEnv) != "" {
		makeGuest(t)
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("real containers need root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("real containers need /bin/busybox")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("coffer-test-%d", os.Getpid())
	hierarchies := makeCgroups(t, name)
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v="+fmt.Sprint(testing.Verbose()))
	cmd.Env = append(os.Environ(), guestEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		Pdeathsig:    syscall.SIGKILL,
	}
	out, err := runIn(cmd, hierarchies)
	if err != nil {
		t.Errorf("in the guest: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// makeGuest covers what must not reach the machine.
func makeGuest(t *testing.T) {
	t.Helper()
	put := func(source, target, fstype, options string) {
		t.Helper()
		if err := unix.Mount(source, target, fstype, 0, options); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	put("tmpfs", "/run", "tmpfs", "")
	for _, h := range hierarchies(t) {
		// The kernel mounts no file system over itself.
		if err := unix.Unmount(h.target, unix.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", h.target, err)
		}
		put(h.fstype, h.target, h.fstype, h.options)
		if h.fstype == "cgroup2" {
			enableControllers(t, h.target)
		}
	}
	// The agent switches memory on; here there is nothing to switch.
	const memory = "/sys/devices/system/memory"
	if _, err := os.Stat(memory); err == nil {
		put("tmpfs", memory, "tmpfs", "")
		if err := os.WriteFile(memory+"/block_size_bytes", []byte("8000000\n"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
}

// instance is an agent that serves on a socket.
type instance struct {
	parts
	client  *ttrpc.Client
	address string // of its socket
	served  chan error
	stack   *network.Stack
	done    context.CancelFunc
	loops   *errgroup.Group
}

// parts are what a builder made.
type parts struct {
	server    *rpc.Server
	destroyed <-chan struct{}
	stop      func(context.Context) error
}

// builder makes the parts of an agent. realAgent makes those that ship.
type builder func(*testing.T, *process, *network.Stack, *policy.Rego) parts

func realAgent(t *testing.T, p *process, stack *network.Stack, engine *policy.Rego) parts {
	t.Helper()
	g, err := p.build(&device.Finder{Timeout: p.config.Timeouts.Hotplug}, stack, engine)
	if err != nil {
		t.Fatal(err)
	}
	g.server.Open()
	return parts{g.server, g.destroyed, g.stop}
}

// newProcess is a process as configure leaves it.
func newProcess(t *testing.T) (*process, context.CancelFunc) {
	t.Helper()
	cfg, _, err := config.Load(config.Sources{File: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{init: true, config: cfg, ledger: &ledger{}, clock: clock.New()}
	p.group, p.ctx = errgroup.WithContext(ctx)
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	p.log(logging.Options{Level: slog.LevelInfo, Version: version, Out: out})
	return p, cancel
}

// bootAgent serves with a policy. The test must call end.
func bootAgent(t *testing.T, rules string, build builder) *instance {
	t.Helper()
	p, done := newProcess(t)
	stack, err := network.Open(&device.Finder{Timeout: p.config.Timeouts.Hotplug})
	if err != nil {
		t.Fatal(err)
	}
	engine := policy.New()
	if err := engine.Replace(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	made := build(t, p, stack, engine)
	address := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	a := &instance{parts: made, address: address, served: make(chan error, 1), stack: stack, done: done, loops: p.group}
	go func() { a.served <- made.server.Serve(l) }()
	conn, err := net.Dial("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	a.client = ttrpc.NewClient(conn)
	return a
}

// end takes the agent down as serve does.
func (a *instance) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := a.stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-a.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	a.client.Close()
	a.stack.Close()
	a.done()
	if err := a.loops.Wait(); err != nil {
		t.Errorf("loops: %v", err)
	}
}

// makeRoot fills a directory with what the containers of these tests run.
func makeRoot(t *testing.T, root string) {
	t.Helper()
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "mnt", "root", "scratch", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "id", "ls", "head", "hostname", "tty", "stty", "ps", "echo", "touch", "true"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	pause := []byte("#!/bin/sh\nexec sleep 100000\n")
	if err := os.WriteFile(filepath.Join(root, "pause"), pause, 0o755); err != nil {
		t.Fatal(err)
	}
}

// leftovers lists the mounts of this namespace and the open files of this
// process, which an agent must leave as they were.
func leftovers(t *testing.T) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	out := strings.Split(strings.TrimSpace(string(table)), "\n")
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil { // the directory itself is closed by now
			out = append(out, "fd "+fd.Name()+" "+target)
		}
	}
	return out
}

// sameLeftovers compares the numbers of files, and mounts one by one.
func sameLeftovers(t *testing.T, before, after []string) {
	t.Helper()
	for _, line := range after {
		if !strings.HasPrefix(line, "fd ") && !slices.Contains(before, line) {
			t.Errorf("left mounted: %s", line)
		}
	}
	if len(after) != len(before) {
		t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// allowAll lets every call through, and each by a rule of its own.
const allowAll = "package agent_policy\ndefault AllowRequestsFailingPolicy := true\n"
