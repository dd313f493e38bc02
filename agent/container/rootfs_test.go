package container_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// caps gives a spec's process these capabilities alone.
func caps(s *specs.Spec, names ...string) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// bind mounts source on destination in the container.
func bind(source, destination string, options ...string) specs.Mount {
	return specs.Mount{Source: source, Destination: destination, Type: "bind", Options: append([]string{"bind"}, options...)}
}

func TestRealDefaultDevices(t *testing.T) {
	l := needLab(t)
	got := l.output(t, shell(`cd /dev; busybox stat -c '%n %F %t:%T %a' null zero full random urandom tty
		for x in fd stdin stdout stderr ptmx; do echo $x $(busybox readlink $x); done
		echo x >null; head -c 2 /dev/zero | busybox wc -c; echo x >full`), nil)
	want := `null character special file 1:3 666
zero character special file 1:5 666
full character special file 1:7 666
random character special file 1:8 666
urandom character special file 1:9 666
tty character special file 5:0 666
fd /proc/self/fd
stdin /proc/self/fd/0
stdout /proc/self/fd/1
stderr /proc/self/fd/2
ptmx pts/ptmx
2
`
	if want += "sh: write error: No space left on device\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// TestRealMounts is about options of mounts: those of the kernel's flags, those
// of a filesystem, mount points that have to be made, and the order.
func TestRealMounts(t *testing.T) {
	l := needLab(t)
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := l.output(t, shell(`grep -E ' /(ro|made|tmp/size|deep)' /proc/self/mounts | busybox cut -d' ' -f2-4 | busybox sed 's/,relatime//;s/,inode64//;s/ext4/disk/;s/overlay/disk/'
		cat /made/by/file /deep/er; touch /ro/x`), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			bind(source, "/ro", "ro", "nosuid", "nodev", "noexec"),
			bind(filepath.Join(source, "file"), "/made/by/file"),
			specs.Mount{Source: "tmpfs", Destination: "/tmp/size", Type: "tmpfs", Options: []string{"size=64k", "mode=700", "noexec"}},
			specs.Mount{Source: "tmpfs", Destination: "/deep", Type: "tmpfs", Options: []string{"size=64k"}},
			bind(filepath.Join(source, "file"), "/deep/er"))
	})
	for _, want := range []string{
		"/tmp/size tmpfs rw,noexec,size=64k,mode=700", "/deep tmpfs rw,size=64k\n", "content\ncontent\n", "Read-only file system",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("printed %q, want %q in it", got, want)
		}
	}
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "/ro ") && !strings.Contains(line, " ro,nosuid,nodev,noexec") {
			t.Errorf("flags of the bind: %q", line)
		}
	}
}

// TestRealPropagation sees a mount that is made in the guest after the container
// started: where the spec wants it, and nowhere else.
func TestRealPropagation(t *testing.T) {
	l := needLab(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(dir, "later")
	if err := os.Mkdir(later, 0o755); err != nil {
		t.Fatal(err)
	}
	script := shell("read go; echo /slave/later/* /private/later/*; mount -t tmpfs none /slave && echo mounted")
	c := l.run(t, "propagation", script, func(s *specs.Spec) {
		caps(s, "CAP_SYS_ADMIN")
		s.Mounts = append(s.Mounts, bind(dir, "/slave", "rslave"), bind(dir, "/private", "rprivate"))
	})
	p := start(t, c)
	if err := unix.Mount("tmpfs", later, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(later, "news"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.WriteStdin(patient(t), []byte("\n"))
	if got := string(readAll(t, p.ReadStdout, 100)); got != "/slave/later/news /private/later/*\nmounted\n" {
		t.Errorf("printed %q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the container's mount reached the guest: %v", entries)
	}
}

// TestRealProcGuard is about mounts below /proc that could make it lie.
func TestRealProcGuard(t *testing.T) {
	l := needLab(t)
	fake := t.TempDir()
	if err := os.WriteFile(filepath.Join(fake, "file"), []byte("made up\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := l.output(t, shell("cat /proc/cpuinfo; cat /proc/uptime"), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, bind(filepath.Join(fake, "file"), "/proc/cpuinfo"), bind(filepath.Join(fake, "file"), "/proc/uptime"))
	})
	if got != "made up\nmade up\n" {
		t.Errorf("files that may be covered read %q", got)
	}
	for _, m := range []specs.Mount{
		bind(fake, "/proc"), bind(filepath.Join(fake, "file"), "/proc/sysrq-trigger"),
		bind(fake, "/proc/sys"), bind(fake, "/proc/self/attr"),
		{Source: "tmpfs", Destination: "/proc", Type: "tmpfs"},
	} {
		spec := l.spec("guard", shell("true"))
		spec.Mounts = append(spec.Mounts, m)
		if _, err := container.New(patient(t), l.driver, "guard", spec, container.Options{}); err == nil || !strings.Contains(err.Error(), "proc") {
			t.Errorf("mount on %s: %v", m.Destination, err)
		}
	}
}

// TestRealMountsStayInside has links of the image that lead out of it on the
// way to a mount point.
func TestRealMountsStayInside(t *testing.T) {
	l := needLab(t)
	outside := t.TempDir()
	for name, target := range map[string]string{"abs": outside, "rel": "../../../../../../.." + outside, "self": "/proc/self/cwd"} {
		if err := os.Symlink(target, filepath.Join(l.rootfs, name)); err != nil {
			t.Fatal(err)
		}
	}
	got := l.output(t, shell("echo /abs/x/* /rel/x/*"), func(s *specs.Spec) {
		for _, d := range []string{"/abs/x", "/rel/x"} {
			s.Mounts = append(s.Mounts, bind(filepath.Join(l.rootfs, "etc"), d))
		}
	})
	if got != "/abs/x/passwd /rel/x/passwd\n" {
		t.Errorf("printed %q", got)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("made outside of the root: %v", entries)
	}
}

// TestRealReadOnly covers a root, paths of it, and /dev that cannot be written.
func TestRealReadOnly(t *testing.T) {
	l := needLab(t)
	l.write(t, "etc/masked", "secret", 0o644)
	if err := os.MkdirAll(filepath.Join(l.rootfs, "tmp/dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := l.output(t, shell(`cat /etc/masked | busybox wc -c; echo /tmp/dir/*; for f in /x /tmp/x /proc/sys/kernel/domainname /dev/x; do (echo x >$f) 2>&1 | busybox sed 's/.*: //'; done; grep -c ' / .* ro' /proc/self/mounts`),
		func(s *specs.Spec) {
			s.Root.Readonly = true
			s.Mounts[1].Options = append(s.Mounts[1].Options, "ro")
			s.Linux.MaskedPaths = []string{"/etc/masked", "/tmp/dir", "/not/there"}
			s.Linux.ReadonlyPaths = []string{"/proc/sys", "/not/there"}
		})
	if got != "0\n/tmp/dir/*\n"+strings.Repeat("Read-only file system\n", 4)+"1\n" {
		t.Errorf("printed %q", got)
	}
}

// TestRealMoveRoot confines a container without pivot_root, as on a guest whose
// own root is its initramfs.
func TestRealMoveRoot(t *testing.T) {
	l := needLab(t)
	d := container.NewLibcontainer(container.LibcontainerOptions{StateRoot: t.TempDir(), NoPivotRoot: true})
	c, err := container.New(patient(t), d, "moved", l.spec("moved", shell("cd /; echo * ../*; busybox cut -d' ' -f2 /proc/self/mounts | head -1")), container.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, c)
	if got := string(readAll(t, p.ReadStdout, 1000)); got != "bin dev etc proc sys tmp ../bin ../dev ../etc ../proc ../sys ../tmp\n/\n" {
		t.Errorf("printed %q", got)
	}
	wait(t, p, 0)
	if err := c.Destroy(patient(t)); err != nil {
		t.Error(err)
	}
}
