package devices

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const description = `cdiVersion: "0.6.0"
kind: vendor.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/null, type: c}]
- name: "1"
  containerEdits:
    env: ["GPU=1"]
- name: all
  containerEdits:
    env: ["GPU=all"]
containerEdits:
  env: ["DRIVER=9"]
  mounts: [{hostPath: /usr/lib/libgpu.so, containerPath: /usr/lib/libgpu.so, options: [ro, bind]}]
  hooks: [{hookName: createContainer, path: /usr/bin/cdi-hook, args: [cdi-hook, ldcache]}]
`

func cdiSpec(env []string, annotations ...string) *specs.Spec {
	s := &specs.Spec{Process: &specs.Process{Env: env}, Linux: &specs.Linux{}, Annotations: map[string]string{}}
	for i := 0; i+1 < len(annotations); i += 2 {
		s.Annotations[annotations[i]] = annotations[i+1]
	}
	return s
}

func describe(t *testing.T, dir, text string) {
	t.Helper()
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, filepath.Join(dir, "vendor.yaml")); err != nil {
		t.Fatal(err)
	}
}

func TestCDI(t *testing.T) {
	c := CDI{Dir: t.TempDir(), Timeout: time.Minute, Visible: true}
	describe(t, c.Dir, description)
	s := cdiSpec([]string{"VISIBLE_CDI_DEVICES=vendor.com/gpu=1,0"}, "cdi.k8s.io/a", "vendor.com/gpu=0", "other", "vendor.com/gpu=all")
	if err := c.Inject(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if d := s.Linux.Devices; len(d) != 1 || d[0].Path != "/dev/null" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("devices %+v", d)
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || !r[0].Allow || *r[0].Minor != 3 {
		t.Errorf("rules %+v", r)
	}
	if got := strings.Join(s.Process.Env[1:], " "); got != "DRIVER=9 GPU=1" {
		t.Errorf("environment %q", got)
	}
	if len(s.Mounts) != 1 || s.Hooks == nil || len(s.Hooks.CreateContainer) != 1 {
		t.Errorf("mounts %+v, hooks %+v", s.Mounts, s.Hooks)
	}
}

func TestCDINothing(t *testing.T) {
	c := CDI{Dir: "/no/such/dir", Timeout: time.Minute}
	for name, s := range map[string]*specs.Spec{
		"no annotation":                 cdiSpec(nil),
		"pause":                         cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/gpu=0", "io.katacontainers.pkg.oci.container_type", "pod_sandbox"),
		"variable that is not honoured": cdiSpec([]string{"VISIBLE_CDI_DEVICES=vendor.com/gpu=all"}),
	} {
		want := *s
		if err := c.Inject(t.Context(), s); err != nil || !reflect.DeepEqual(*s, want) {
			t.Errorf("%s: %v, spec %+v", name, err, s)
		}
	}
}

// A description that appears later is waited for, and one that is broken
// meanwhile does not end the wait.
func TestCDIWait(t *testing.T) {
	c := CDI{Dir: t.TempDir(), Timeout: time.Minute}
	describe(t, c.Dir, "cdiVersion: [")
	done := make(chan error, 1)
	s := cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/gpu=all")
	go func() { done <- c.Inject(context.WithoutCancel(t.Context()), s) }()
	describe(t, c.Dir, description)
	if err := <-done; err != nil || s.Process.Env[len(s.Process.Env)-1] != "GPU=all" {
		t.Errorf("got %v, environment %q", err, s.Process.Env)
	}
}

func TestCDIRefuses(t *testing.T) {
	dir := t.TempDir()
	describe(t, dir, strings.Replace(description, "path: /dev/null", "path: /no/node", 1))
	for _, tt := range []struct {
		name  string
		s     *specs.Spec
		class func(error) bool
		want  string
	}{
		{"kind that does not come", cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/nic=0"), errdefs.IsUnavailable, "vendor.com/nic=0"},
		{"device that will not come", cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/gpu=7"), errdefs.IsNotFound, "vendor.com/gpu=7"},
		{"no name", cdiSpec(nil, "cdi.k8s.io/a", "0"), errdefs.IsInvalidArgument, "cdi.k8s.io/a"},
		{"node that does not exist", cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/gpu=0"), errdefs.IsFailedPrecondition, "/no/node"},
		{"bad variable", cdiSpec([]string{"VISIBLE_CDI_DEVICES=all"}), errdefs.IsInvalidArgument, "VISIBLE_CDI_DEVICES"},
		{"too many", cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/gpu=0"+strings.Repeat(",vendor.com/gpu=0", maxCDIDevices)), errdefs.IsInvalidArgument, "256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := CDI{Dir: dir, Timeout: 1, Visible: true}
			if err := c.Inject(t.Context(), tt.s); !tt.class(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := CDI{Dir: dir, Timeout: time.Hour}.Inject(ctx, cdiSpec(nil, "cdi.k8s.io/a", "vendor.com/nic=0"))
	if !errdefs.IsCanceled(err) && !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("after the call has ended: %v", err)
	}
}

func TestVisibleDevices(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  string // "error", or names with blanks between
	}{
		{"", ""}, {"none", ""}, {"void", ""}, {" none ", ""},
		{"a.com/gpu=all", "a.com/gpu=all"}, {"a.com/gpu=0,1", "a.com/gpu=0 a.com/gpu=1"},
		{" a.com/gpu = 0 , 1 : b.com/ib=all ", "a.com/gpu=0 a.com/gpu=1 b.com/ib=all"},
		{"a.com/gpu=007", "a.com/gpu=7"},
		{"all", "error"}, {"0", "error"}, {"=0", "error"}, {"a.com/gpu=", "error"}, {"a.com/gpu=0,", "error"},
		{"a.com/gpu=all,0", "error"}, {"a.com/gpu=-1", "error"}, {"a.com/gpu=x", "error"}, {"a.com/gpu=4294967296", "error"},
		{"gpu=0", "error"}, {"a.com/gpu=0:", "error"}, {"a.com/g/u=0", "error"},
	} {
		got, err := visibleDevices([]string{"X=y", "VISIBLE_CDI_DEVICES=" + tt.value, "VISIBLE_CDI_DEVICES=b.com/x=9"})
		if (tt.want == "error") != (err != nil) || err == nil && strings.Join(got, " ") != tt.want {
			t.Errorf("%q: got %q, %v, want %q", tt.value, got, err, tt.want)
		}
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: class of %v", tt.value, err)
		}
	}
	if got, err := visibleDevices(nil); got != nil || err != nil {
		t.Errorf("without the variable: %v, %v", got, err)
	}
}

func FuzzVisibleDevices(f *testing.F) {
	f.Add("nvidia.com/gpu=all:nvidia.com/ib=0,1")
	f.Add("none")
	f.Add("a=:,=")
	f.Fuzz(func(t *testing.T, value string) {
		names, err := visibleDevices([]string{"VISIBLE_CDI_DEVICES=" + value})
		for _, n := range names {
			if err != nil || strings.Count(n, "=") != 1 {
				t.Errorf("%q gives %q, %v", value, names, err)
			}
		}
	})
}
