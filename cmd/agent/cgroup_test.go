package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	target, fstype, options string
	own                     string // the directory that is the guest's root
}

func hierarchies(t *testing.T) []hierarchy {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []hierarchy
	for _, line := range strings.Split(string(table), "\n") {
		left, right, _ := strings.Cut(line, " - ")
		head, tail := strings.Fields(left), strings.Fields(right)
		switch {
		case !strings.HasPrefix(right, "cgroup"):
		case tail[0] == "cgroup":
			out = append(out, hierarchy{target: head[4], fstype: tail[0], options: strings.TrimPrefix(tail[2], "rw,")})
		default:
			out = append(out, hierarchy{target: head[4], fstype: tail[0]})
		}
	}
	return out
}

// makeCgroups makes the guest's root in each hierarchy, for the time of the test.
func makeCgroups(t *testing.T, name string) []hierarchy {
	t.Helper()
	all := hierarchies(t)
	for i := range all {
		h := &all[i]
		h.own = filepath.Join(h.target, name)
		if err := os.Mkdir(h.own, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroups(t, h.own) })
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a new v1 cpuset has none
			value, err := os.ReadFile(filepath.Join(h.target, file))
			if err != nil || h.fstype != "cgroup" {
				continue
			}
			if err := os.WriteFile(filepath.Join(h.own, file), value, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

func removeCgroups(t *testing.T, root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		err := os.Remove(dir)
		for end := time.Now().Add(5 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
			runtime.Gosched() // the thread of runIn is about to end
			err = os.Remove(dir)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// runIn runs cmd in the cgroups, so that they are the root of its namespace. A
// thread goes ahead and never comes back, which ends it; cgroups of version 2
// take no single thread, but a child at its birth.
func runIn(cmd *exec.Cmd, all []hierarchy) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for _, h := range all {
			if h.fstype == "cgroup2" {
				var dir *os.File
				if dir, err = os.Open(h.own); err != nil {
					return
				}
				defer dir.Close()
				cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
				continue
			}
			tid := []byte(strconv.Itoa(unix.Gettid()))
			if err = os.WriteFile(filepath.Join(h.own, "tasks"), tid, 0); err != nil {
				return
			}
		}
		out, err = cmd.CombinedOutput()
	}()
	<-done
	return out, err
}

// enableControllers does what PID 1 does in a guest: only a cgroup without
// processes of its own can pass controllers on.
func enableControllers(t *testing.T, root string) {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil || len(strings.TrimSpace(string(all))) == 0 {
		return // version 1 has them
	}
	own := filepath.Join(root, "agent")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.Fields(string(all)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			t.Fatal(err)
		}
	}
}
