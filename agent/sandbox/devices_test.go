package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/mount/device"
)

// gpu describes a device of the guest: a node, a variable, a library and a hook.
const gpu = `cdiVersion: "0.6.0"
kind: vendor.com/gpu
devices:
- name: "0"
  containerEdits:
    env: ["GPU=0"]
    deviceNodes: [{path: /dev/gpu0, hostPath: /dev/zero}]
containerEdits:
  mounts: [{hostPath: HOST/lib, containerPath: /lib/gpu, options: [ro, bind]}]
  hooks: [{hookName: createContainer, path: /bin/sh, args: [sh, -c, "echo hook >HOST/ran"]}]
`

// TestRealCDI gives a container a device that the guest describes, and to nobody
// else.
func TestRealCDI(t *testing.T) {
	p := newPod(t)
	host := t.TempDir()
	if err := os.Mkdir(filepath.Join(host, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"lib/so": "library\n", "vendor.yaml": strings.ReplaceAll(gpu, "HOST", host)} {
		if err := os.WriteFile(filepath.Join(host, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.deps.CDI = devices.CDI{Dir: host, Timeout: time.Minute, Visible: true}
	script := "echo gpu $GPU; read x </lib/gpu/so && echo $x; head -c 1 /dev/gpu0 >/dev/null && echo opened"
	for id, tc := range map[string]struct {
		edit func(*specs.Spec)
		want string
	}{
		"pod1":    {func(s *specs.Spec) { s.Annotations["io.katacontainers.pkg.oci.container_type"] = "pod_sandbox" }, "gpu\n"},
		"by-note": {func(*specs.Spec) {}, "gpu 0\nlibrary\nopened\n"},
		"by-name": {func(s *specs.Spec) {
			clear(s.Annotations)
			s.Process.Env = append(s.Process.Env, "VISIBLE_CDI_DEVICES=vendor.com/gpu=0")
		}, "gpu 0\nlibrary\nopened\n"},
	} {
		r := p.request(t, id, script).withoutShm()
		r.Spec.Annotations = map[string]string{"cdi.k8s.io/test": "vendor.com/gpu=0"}
		tc.edit(r.Spec)
		if got := stdout(t, p.start(t, r)); got != tc.want {
			t.Errorf("%s printed %q, want %q", id, got, tc.want)
		}
	}
	if got, err := os.ReadFile(filepath.Join(host, "ran")); err != nil || string(got) != "hook\n" {
		t.Errorf("hook wrote %q, %v", got, err)
	}
	r := p.request(t, "unknown", script).withoutShm()
	r.Spec.Annotations = map[string]string{"cdi.k8s.io/test": "vendor.com/gpu=1"}
	if err := p.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "vendor.com/gpu=1") {
		t.Errorf("a device that the guest lacks: %v", err)
	}
}

func stdout(t *testing.T, p *container.Process) string {
	t.Helper()
	all, _, _ := strings.Cut(output(t, p), "/bin/sh: ")
	return all
}

// TestRealPCIAddresses has a network function on a recorded bus, and programs
// that learn where it is: the first one and one that comes later.
func TestRealPCIAddresses(t *testing.T) {
	p := newPod(t)
	sys, dev := t.TempDir(), t.TempDir()
	bus := filepath.Join(sys, "bus/pci/devices")
	if err := os.MkdirAll(bus, 0o755); err != nil {
		t.Fatal(err)
	}
	for address, way := range map[string]string{"0000:00:07.0": "", "0000:01:03.0": "0000:00:02.0/"} {
		if err := os.Symlink("../../../devices/pci0000:00/"+way+address, filepath.Join(bus, address)); err != nil {
			t.Fatal(err)
		}
	}
	// The node that the driver of the function made, by another name of /dev/null.
	if err := os.Mkdir(filepath.Join(dev, "infiniband"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dev, "infiniband/uverbs0"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	p.deps.Devices = &device.Finder{Sys: sys, Dev: dev}
	env := []string{"PCIDEVICE_V_NIC=0000:c8:01.2,0000:c8:01.3", `PCIDEVICE_V_NIC_INFO={"0000:c8:01.3":1}`}
	const show = `echo $PCIDEVICE_V_NIC $PCIDEVICE_V_NIC_INFO`
	const want = `0000:00:07.0,0000:01:03.0 {"0000:01:03.0":1}` + "\n"
	r := p.request(t, "pod1", show+"; echo x >/dev/infiniband/uverbs0 && echo opened; exec sleep 1000").withoutShm()
	r.Spec.Process.Env = append(r.Spec.Process.Env, env...)
	r.Devices = []devices.Device{
		{ID: "1", Type: "vfio-pci-gk", ContainerPath: "/dev/vfio/1", Options: []string{"0000:c8:01.2=07"}},
		{ID: "2", Type: "vfio-pci-gk", ContainerPath: "/dev/vfio/2", Options: []string{"0000:c8:01.3=02/03"}},
	}
	init := p.start(t, r)
	got := ""
	for !strings.HasSuffix(got, "opened\n") {
		b, err := init.ReadStdout(t.Context(), 4096)
		if err != nil {
			t.Fatalf("printed %q, then %v", got, err)
		}
		got += string(b)
	}
	if got != want+"opened\n" {
		t.Errorf("the first program prints %q, want %q", got, want)
	}
	later := &specs.Process{Args: []string{"/bin/sh", "-c", show}, Cwd: "/", Env: env}
	if err := p.Exec(t.Context(), "pod1", "e", later); err != nil {
		t.Fatal(err)
	}
	e, err := p.Process("pod1", "e")
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, e); got != want {
		t.Errorf("a later one prints %q, want %q", got, want)
	}
}
