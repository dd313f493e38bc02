package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// healthy is a guest that lacks nothing.
func healthy(t *testing.T) Guest {
	t.Helper()
	g := Guest{
		Root: t.TempDir(), WorkDir: "/run/images", Built: built, VPorts: true,
		Release: func() (string, error) { return "6.16.0", nil },
		Statfs: func(string) (Space, error) {
			return Space{Size: 2 << 30, Free: 1 << 30, Inodes: 1 << 20, Tmpfs: true}, nil
		},
		Random:   func() bool { return true },
		VsockCID: func() (uint32, error) { return 3, nil },
		Now:      func() time.Time { return built.Add(time.Hour) },
	}
	put(t, g, "/proc/config.gz", zipped(t, allOptions("=y")))
	put(t, g, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
	put(t, g, "/proc/meminfo", "MemTotal:  2097152 kB\nMemAvailable: 1048576 kB\nSwapTotal:       0 kB\n")
	put(t, g, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
	return g
}

func allOptions(value string) string {
	var b strings.Builder
	b.WriteString("# Linux\n")
	for _, o := range options() {
		b.WriteString(o.name + value + "\n")
	}
	return b.String()
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func put(t *testing.T, g Guest, path, text string) {
	t.Helper()
	path = filepath.Join(g.Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, g Guest, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(g.Root, path)); err != nil {
		t.Fatal(err)
	}
}

func TestHealthy(t *testing.T) {
	findings := Run(t.Context(), healthy(t).Checks(), time.Minute)
	for _, f := range findings {
		if f.Status != OK || f.Text == "" || f.Remedy != "" || f.Check == "" {
			t.Errorf("%+v", f)
		}
	}
	if len(findings) != 8 || Worst(findings) != OK {
		t.Errorf("%d findings, %s", len(findings), Worst(findings))
	}
}

// TestAilments takes one thing away at a time: the check it concerns says so with
// a remedy, and the others stay as they were.
func TestAilments(t *testing.T) {
	space := func(s Space) func(string) (Space, error) { return func(string) (Space, error) { return s, nil } }
	for name, c := range map[string]struct {
		spoil  func(*Guest)
		check  string
		status Status
		text   string
	}{
		"kernel says nothing": {func(g *Guest) { remove(t, *g, "/proc/config.gz") }, "kernel", Fault, "by what it shows without CONFIG_NAMESPACES"},
		"option": {func(g *Guest) {
			put(t, *g, "/proc/config.gz", zipped(t, strings.Replace(allOptions("=m"), "CONFIG_DM_VERITY=m", "# CONFIG_DM_VERITY is not set", 1)))
		}, "kernel", Warning, "without CONFIG_DM_VERITY"},
		"needed option": {func(g *Guest) {
			remove(t, *g, "/proc/config.gz")
			put(t, *g, "/boot/config-6.16.0", strings.Replace(allOptions("=y"), "CONFIG_OVERLAY_FS=y\n", "", 1))
		}, "kernel", Fault, "by /boot/config-6.16.0 without CONFIG_OVERLAY_FS"},
		"torn configuration": {func(g *Guest) { put(t, *g, "/proc/config.gz", "no gzip") }, "kernel", Fault, "by what it shows"},
		"clock":              {func(g *Guest) { g.Now = func() time.Time { return built.Add(-time.Hour) } }, "clock", Fault, "before this agent was built"},
		"clock of the host": {func(g *Guest) {
			put(t, *g, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "acpi_pm")
		}, "clock", Warning, "acpi_pm"},
		"no random numbers": {func(g *Guest) { g.Random = func() bool { return false } }, "entropy", Fault, "not ready"},
		"credit for the host": {func(g *Guest) {
			put(t, *g, "/sys/class/misc/hw_random/rng_current", "virtio_rng.0")
			put(t, *g, "/sys/class/misc/hw_random/rng_quality", "1000")
		}, "entropy", Warning, "credits"},
		"cgroup v1": {func(g *Guest) {
			remove(t, *g, "/sys/fs/cgroup/cgroup.controllers")
			put(t, *g, "/sys/fs/cgroup/memory/x", "")
			put(t, *g, "/sys/fs/cgroup/devices/x", "")
		}, "cgroups", Warning, "version 1"},
		"no cgroups":        {func(g *Guest) { remove(t, *g, "/sys/fs/cgroup/cgroup.controllers") }, "cgroups", Fault, "none is mounted"},
		"controller":        {func(g *Guest) { put(t, *g, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory pids") }, "cgroups", Warning, "without io hugetlb"},
		"needed controller": {func(g *Guest) { put(t, *g, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids") }, "cgroups", Fault, "without memory"},
		"little memory":     {func(g *Guest) { put(t, *g, "/proc/meminfo", "MemTotal: 102400 kB\nMemAvailable: 40960 kB\n") }, "memory", Warning, "40 MiB of 100 MiB"},
		"no memory":         {func(g *Guest) { put(t, *g, "/proc/meminfo", "MemTotal: 102400 kB\nMemAvailable: 4096 kB\n") }, "memory", Fault, "4 MiB"},
		"swap": {func(g *Guest) {
			put(t, *g, "/proc/meminfo", "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\nSwapTotal: 4 kB\n")
		}, "memory", Warning, "swap is on"},
		"little space":       {func(g *Guest) { g.Statfs = space(Space{Size: 1 << 30, Free: 100 << 20}) }, "space for images", Warning, "100 MiB of 1024 MiB"},
		"no inodes":          {func(g *Guest) { g.Statfs = space(Space{Size: 1 << 30, Free: 1 << 30, Inodes: 7}) }, "space for images", Warning, "7 inodes"},
		"no file system":     {func(g *Guest) { g.Statfs = func(string) (Space, error) { return Space{}, errors.New("x") } }, "space of /run", Fault, "cannot be examined"},
		"no vsock":           {func(g *Guest) { g.VsockCID = func() (uint32, error) { return 0, nil } }, "vsock", Fault, "no transport"},
		"no vsock in kernel": {func(g *Guest) { g.VsockCID = func() (uint32, error) { return 0, os.ErrNotExist } }, "vsock", Fault, "not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			g := healthy(t)
			c.spoil(&g)
			for _, f := range Run(t.Context(), g.Checks(), time.Minute) {
				same := f.Check == c.check || strings.HasPrefix(f.Check, "space") && strings.HasPrefix(c.check, "space")
				if f.Check == c.check && (f.Status != c.status || !strings.Contains(f.Text, c.text) || f.Remedy == "") {
					t.Errorf("%+v, want %s %q", f, c.status, c.text)
				}
				if !same && f.Status != OK {
					t.Errorf("another check: %+v", f)
				}
			}
		})
	}
}

func TestVsockElsewhere(t *testing.T) {
	g := healthy(t)
	g.VPorts, g.VsockCID = false, func() (uint32, error) { return 0, os.ErrNotExist }
	if f := g.vsock(); f.Status != OK {
		t.Errorf("%+v", f)
	}
}

// TestSpaceAbove looks at what will hold a directory that is not there yet.
func TestSpaceAbove(t *testing.T) {
	g := healthy(t)
	var asked []string
	g.Statfs = func(path string) (Space, error) {
		asked = append(asked, strings.TrimPrefix(path, g.Root))
		if strings.TrimPrefix(path, g.Root) != "/run" {
			return Space{}, os.ErrNotExist
		}
		return Space{Size: 1 << 30, Free: 1 << 30}, nil
	}
	if f := g.space("/run/a/b", minImages); f.Status != OK || strings.Join(asked, " ") != "/run/a/b /run/a /run" {
		t.Errorf("%+v after %v", f, asked)
	}
}

// TestRunIsBounded leaves behind what does not end, and keeps the order.
func TestRunIsBounded(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	findings := Run(t.Context(), []Check{
		{"stuck", func(context.Context) Finding { <-hold; return good("late") }},
		{"heeds", func(ctx context.Context) Finding { <-ctx.Done(); return bad("r", "gave up") }},
		{"quick", func(context.Context) Finding { return good("fine") }},
	}, 20*time.Millisecond)
	if f := findings[0]; f.Check != "stuck" || f.Status != Fault || !strings.Contains(f.Text, "no answer within") {
		t.Errorf("%+v", f)
	}
	if findings[1].Text != "gave up" || findings[2].Status != OK || Worst(findings) != Fault {
		t.Errorf("%+v", findings)
	}
	if Worst([]Finding{{Status: OK}, {Status: Warning}}) != Warning {
		t.Error("a warning is worse than nothing")
	}
}

func TestReach(t *testing.T) {
	served := func(http.ResponseWriter, *http.Request) { t.Error("something was asked of the server") }
	plain := httptest.NewServer(http.HandlerFunc(served))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(served))
	defer secure.Close()
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	via := func(to string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return url.Parse(to) }
	}
	for name, c := range map[string]struct {
		target Target
		status Status
		text   string
	}{
		"plain":           {Target{URL: plain.URL}, Warning, "without TLS"},
		"trusted":         {Target{URL: secure.URL, Roots: []string{cert}}, OK, "its certificate is trusted"},
		"pinned":          {Target{URL: secure.URL, Roots: []string{cert}, Pin: true}, OK, "TLS 1.3"},
		"not trusted":     {Target{URL: secure.URL}, Fault, "certificate not trusted"},
		"no TLS":          {Target{URL: strings.Replace(plain.URL, "http", "https", 1)}, Fault, "no TLS"},
		"no PEM":          {Target{URL: secure.URL, Roots: []string{"x"}}, Fault, "not PEM"},
		"nothing to pin":  {Target{URL: secure.URL, Pin: true}, Fault, "not PEM"},
		"refused":         {Target{URL: nobody}, Fault, "connection refused"},
		"no name":         {Target{URL: "https://registry.invalid"}, Fault, "is not resolved"},
		"no URL":          {Target{URL: "registry"}, Fault, "malformed"},
		"silent":          {Target{URL: "https://" + silent.Addr().String()}, Fault, "no answer in time"},
		"by a proxy":      {Target{URL: "https://registry.invalid", Via: via(plain.URL)}, OK, "its proxy"},
		"proxy not there": {Target{URL: "https://registry.invalid", Via: via(nobody)}, Fault, "its proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := time.Minute
			if name == "silent" {
				limit = 50 * time.Millisecond
			}
			c.target.Name = name
			f := Run(t.Context(), []Check{Reach(c.target)}, limit)[0]
			if f.Check != name || f.Status != c.status || !strings.Contains(f.Text, c.text) || (f.Remedy == "") != (f.Status == OK) {
				t.Errorf("%+v, want %s %q", f, c.status, c.text)
			}
		})
	}
}

// TestHere looks at the machine of the test: whatever is there, each check ends
// with words.
func TestHere(t *testing.T) {
	for _, f := range Run(t.Context(), Here("/run/image-layers", built, true).Checks(), time.Minute) {
		if f.Text == "" || f.Status != OK && f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	}
}
