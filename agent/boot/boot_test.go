package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

var errNoNamespace = errors.New("cannot make namespaces")

// apart runs do on a thread with namespaces of its own. The thread ends with do,
// and the namespaces with it.
func apart(t *testing.T, flags int, do func() error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(flags | unix.CLONE_FS)
		if err == nil && flags&unix.CLONE_NEWNS != 0 {
			err = setPrivate("/")
		}
		if err != nil {
			result <- fmt.Errorf("%w: %w", errNoNamespace, err)
			return
		}
		result <- do()
	}()
	err := <-result
	if errors.Is(err, errNoNamespace) {
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	var ran []string
	step := func(name string, optional bool, err error) Step {
		return Step{Name: name, Optional: optional, Do: func(context.Context) error { ran = append(ran, name); return err }}
	}
	broken := errors.New("broken")
	err := Run(t.Context(), []Step{
		step("one", false, nil), step("two", true, broken), step("three", false, broken), step("four", false, nil),
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "three") {
		t.Errorf("got %v", err)
	}
	if want := []string{"one", "two", "three"}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestStepsAreComplete(t *testing.T) {
	names := map[string]bool{}
	for _, s := range Steps(Options{LoopbackUp: func(context.Context) error { return nil }}) {
		if s.Do == nil || names[s.Name] {
			t.Errorf("step %q has nothing to do or comes twice", s.Name)
		}
		names[s.Name] = true
	}
}

// The mounts are made once, also when the boot runs over a prepared root.
func TestMounts(t *testing.T) {
	root := t.TempDir()
	b := bootstrap{Options{Root: root}}
	apart(t, unix.CLONE_NEWNS, func() error {
		for range 2 {
			for _, m := range baseMounts() {
				// devtmpfs is the same in every namespace, so that
				// what is made in it would show up on this host.
				if m.fstype == "devtmpfs" {
					continue
				}
				if err := b.mount(m); err != nil {
					return err
				}
			}
			if err := b.ptmx(t.Context()); err != nil {
				return err
			}
		}
		table, err := mount.Table(root)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range table {
			got = append(got, strings.TrimPrefix(e.Target, root)+" "+e.FSType)
		}
		want := []string{"/proc proc", "/sys sysfs", "/dev/shm tmpfs", "/dev/pts devpts", "/run tmpfs"}
		if !slices.Equal(got, want) {
			return fmt.Errorf("mounted %q, want %q", got, want)
		}
		f, err := os.OpenFile(filepath.Join(root, "dev/ptmx"), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func TestCgroupV2(t *testing.T) {
	root := t.TempDir()
	b := bootstrap{Options{Root: root}}
	known := filepath.Join(root, "proc", "filesystems")
	write(t, known, "nodev\tcgroup\nnodev\tcgroup2\n")
	apart(t, unix.CLONE_NEWNS, func() error {
		for range 2 {
			if err := b.cgroups(t.Context()); err != nil {
				return err
			}
		}
		table, err := mount.Table(root)
		if err != nil || len(table) != 1 || table[0].FSType != "cgroup2" {
			return fmt.Errorf("mounted %+v, %v", table, err)
		}
		return nil
	})
}

func TestCgroupV1(t *testing.T) {
	enabled, err := bootstrap{Options{Root: "/"}}.enabledControllers()
	if err != nil || !slices.Contains(enabled, "devices") {
		t.Skipf("this kernel has no devices controller of version 1: %v, %v", enabled, err)
	}
	root := t.TempDir()
	b := bootstrap{Options{Root: root, CgroupV1: true}}
	write(t, filepath.Join(root, "proc/filesystems"), "nodev\tcgroup\nnodev\tcgroup2\n")
	// Only what the host has in version 1 can be mounted again.
	var lines strings.Builder
	for _, c := range enabled {
		if _, err := os.Stat("/sys/fs/cgroup/" + c + "/cgroup.procs"); err == nil {
			fmt.Fprintf(&lines, "%s\t1\t1\t1\n", c)
		}
	}
	if !strings.Contains(lines.String(), "devices") {
		t.Skip("the devices controller is not mounted on this host")
	}
	write(t, filepath.Join(root, "proc/cgroups"), "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"+lines.String()+"memory\t0\t1\t0\n")
	apart(t, unix.CLONE_NEWNS, func() error {
		if err := b.cgroups(t.Context()); err != nil {
			return err
		}
		if err := os.Mkdir(b.path("/sys/fs/cgroup/x"), 0o755); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("the tmpfs is writable: %v", err)
		}
		_, err := os.Stat(b.path("/sys/fs/cgroup/devices/devices.list"))
		return err
	})
}

func TestEnabledControllers(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "proc/cgroups"), "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"+
		"cpu\t1\t2\t1\nmemory\t2\t2\t0\nmisc\t3\t1\t1\npids\t4\t1\t1\nnonsense\n")
	got, err := bootstrap{Options{Root: root}}.enabledControllers()
	if want := []string{"cpu", "pids"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// pivot_root works on a root that was moved. On the initramfs it would not have
// before, but a test cannot stand on one.
func TestMoveRoot(t *testing.T) {
	dir := t.TempDir()
	apart(t, unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		for _, d := range []string{"sub", "new"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "sub", "there"), nil, 0o600); err != nil {
			return err
		}
		if err := errors.Join(unix.Chroot(dir), unix.Chdir("/")); err != nil {
			return err
		}
		if err := moveRoot(); err != nil {
			return err
		}
		if _, err := os.Stat("/sub/there"); err != nil {
			return fmt.Errorf("mounts were left behind: %w", err)
		}
		if _, err := os.Stat("/.newroot"); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the mount point is left: %v", err)
		}
		if err := unix.Mount("tmpfs", "/new", "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := unix.Chdir("/new"); err != nil {
			return err
		}
		return unix.PivotRoot(".", ".")
	})
}

func TestHostname(t *testing.T) {
	for name, tc := range map[string]struct{ file, want string }{
		"no file":    {"", "localhost"},
		"first word": {"guest extra\n", "guest"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bootstrap{Options{Root: t.TempDir()}}
			if tc.file != "" {
				write(t, b.path("/etc/hostname"), tc.file)
			}
			apart(t, unix.CLONE_NEWUTS, func() error {
				if err := b.hostname(t.Context()); err != nil {
					return err
				}
				var u unix.Utsname
				if err := unix.Uname(&u); err != nil {
					return err
				}
				if got := unix.ByteSliceToString(u.Nodename[:]); got != tc.want {
					return fmt.Errorf("got %q, want %q", got, tc.want)
				}
				return nil
			})
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
