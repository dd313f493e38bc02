package ocispec

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestNamespaces(t *testing.T) {
	shared := Shared{IPC: "/ns/ipc", UTS: "/ns/uts", PID: "/ns/pid"}
	mnt, pid := specs.LinuxNamespace{Type: specs.MountNamespace}, specs.LinuxNamespace{Type: specs.PIDNamespace}
	sharedPID := specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/ns/pid"}
	for _, tc := range []struct {
		name     string
		in       []specs.LinuxNamespace
		shared   Shared
		want     []specs.LinuxNamespace
		hostname string
	}{
		{"a shim's list", []specs.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}}, shared,
			[]specs.LinuxNamespace{mnt, sharedPID, {Type: "ipc", Path: "/ns/ipc"}, {Type: "uts", Path: "/ns/uts"}}, ""},
		{"nothing shared yet", []specs.LinuxNamespace{{Type: "uts"}, {Type: "ipc"}}, Shared{},
			[]specs.LinuxNamespace{mnt, pid, {Type: "uts"}, {Type: "ipc"}}, "name"},
		{"nothing listed", nil, shared, []specs.LinuxNamespace{mnt, sharedPID}, ""},
		{"network of a peer pod", []specs.LinuxNamespace{{Type: "network", Path: "/run/netns/podns"}}, Shared{},
			[]specs.LinuxNamespace{mnt, pid, {Type: "network", Path: "/run/netns/podns"}}, ""},
		{"a network of its own", []specs.LinuxNamespace{{Type: "network"}}, Shared{},
			[]specs.LinuxNamespace{mnt, pid, {Type: "network"}}, ""},
		{"paths that the host made up", []specs.LinuxNamespace{
			{Type: "mount", Path: "/proc/1/ns/mnt"}, {Type: "pid", Path: "/proc/1/ns/pid"}, {Type: "ipc", Path: "/x"},
			{Type: "user", Path: "/proc/1/ns/user"}, {Type: "cgroup", Path: "/proc/1/ns/cgroup"}}, Shared{},
			[]specs.LinuxNamespace{mnt, pid, {Type: "ipc"}, {Type: "user"}, {Type: "cgroup"}}, ""},
		{"the same kind twice", []specs.LinuxNamespace{{Type: "ipc"}, {Type: "ipc", Path: "/x"}}, Shared{},
			[]specs.LinuxNamespace{mnt, pid, {Type: "ipc"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &specs.Spec{Hostname: "name", Linux: &specs.Linux{Namespaces: tc.in}}
			Namespaces(spec, tc.shared)
			if !reflect.DeepEqual(spec.Linux.Namespaces, tc.want) {
				t.Errorf("namespaces = %v, want %v", spec.Linux.Namespaces, tc.want)
			}
			if spec.Hostname != tc.hostname {
				t.Errorf("hostname = %q, want %q", spec.Hostname, tc.hostname)
			}
		})
	}
}

func TestLenient(t *testing.T) {
	for _, tc := range []struct {
		name     string
		fstype   string
		in, want string
	}{
		{"bind with flags", "bind", "rbind rprivate ro nosuid nodev noexec", "rbind rprivate ro nosuid nodev noexec"},
		{"bind with filesystem options", "bind", "rbind rw mode=1777 size=64m fsgid=2 io.katacontainers.x", "rbind rw"},
		{"bind by option", "local", "rbind rprivate rw fsgid=2", "rbind rprivate rw"},
		{"bind by type", "bind", "ro", "ro rbind"},
		{"recursive flags", "bind", "bind rro rnosuid rnodev rnoexec rnorelatime rsymfollow rslave norelatime", "bind rro rnosuid rnodev rnoexec rnorelatime rsymfollow rslave norelatime"},
		{"no bind", "tmpfs", "nosuid mode=755 size=64m", "nosuid mode=755 size=64m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := []specs.Mount{{Type: tc.fstype, Options: strings.Fields(tc.in)}}
			spec := &specs.Spec{Process: &specs.Process{ApparmorProfile: "x"}, Linux: &specs.Linux{IntelRdt: &specs.LinuxIntelRdt{}}, Mounts: in}
			Lenient(spec)
			if got := strings.Join(spec.Mounts[0].Options, " "); got != tc.want {
				t.Errorf("options = %q, want %q", got, tc.want)
			}
			if got := strings.Join(in[0].Options, " "); got != tc.in {
				t.Errorf("the caller's options became %q", got)
			}
			if spec.Process.ApparmorProfile != "" || spec.Linux.IntelRdt != nil {
				t.Error("host-only settings stayed")
			}
		})
	}
}

// What real shims send is taken as it is: nothing in it needs leniency but the
// profile of a security module.
func TestLenientOnRecords(t *testing.T) {
	files, err := filepath.Glob("../../rpc/wire/testdata/spec/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d recorded specs, %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got, want specs.Spec
		if err := errors.Join(json.Unmarshal(raw, &got), json.Unmarshal(raw, &want)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got.Process.ApparmorProfile = "docker-default"
		Lenient(&got)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s became\n%+v\nfrom\n%+v", file, got, want)
		}
	}
}

// FuzzLenient feeds the options of a mount: whatever they are, a bind mount
// keeps flags alone, and leniency twice is leniency once.
func FuzzLenient(f *testing.F) {
	f.Add("bind", "rbind,ro,mode=755")
	f.Add("tmpfs", "size=1m,nosuid")
	f.Add("local", "bind,nonodev,rr,=")
	f.Fuzz(func(t *testing.T, fstype, options string) {
		in := strings.Split(options, ",")
		spec := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}, Mounts: []specs.Mount{{Type: fstype, Options: in}}}
		Lenient(spec)
		once := spec.Mounts[0].Options
		for _, o := range once {
			if !slices.Contains(in, o) && o != "rbind" || slices.Contains(once, "rbind") && strings.Contains(o, "=") {
				t.Errorf("%q gave %q", in, once)
			}
		}
		Lenient(spec)
		if !slices.Equal(once, spec.Mounts[0].Options) {
			t.Errorf("%q became %q", once, spec.Mounts[0].Options)
		}
	})
}

func TestApplyImage(t *testing.T) {
	image := v1.ImageConfig{
		User: "www:data", WorkingDir: "/srv",
		Env:        []string{"PATH=/bin", "A=image"},
		Entrypoint: []string{"/entry"}, Cmd: []string{"arg"},
	}
	for _, tc := range []struct {
		name    string
		in      specs.Process
		want    specs.Process
		applied bool
	}{
		{"empty process", specs.Process{Env: []string{"A=pod", "B=pod"}, Cwd: "/"}, specs.Process{
			Args: []string{"/entry", "arg"}, Env: []string{"PATH=/bin", "A=pod", "B=pod"},
			Cwd: "/srv", User: specs.User{Username: "www:data"}}, true},
		{"directory and user of the pod", specs.Process{Cwd: "/pod", User: specs.User{UID: 5}}, specs.Process{
			Args: []string{"/entry", "arg"}, Env: image.Env, Cwd: "/pod", User: specs.User{UID: 5}}, true},
		{"complete process", specs.Process{Args: []string{"x"}}, specs.Process{Args: []string{"x"}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &specs.Spec{Process: &tc.in}
			if got := ApplyImage(spec, image); got != tc.applied {
				t.Errorf("ApplyImage = %v, want %v", got, tc.applied)
			}
			if !reflect.DeepEqual(*spec.Process, tc.want) {
				t.Errorf("process = %+v, want %+v", *spec.Process, tc.want)
			}
		})
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2", "odd"}, []string{"C=3", "A=", "odd", "A=last"})
	want := []string{"A=last", "B=2", "odd", "C=3"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("MergeEnv = %q, want %q", got, want)
	}
}

func TestResolveUser(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nwww:x:33:44::/srv:/bin/false\nbroken line\n"
	const group = "root:x:0:\ndata:x:55:\nextra:x:66:www,other\n"
	for _, tc := range []struct {
		name, user string
		want       specs.User
		bad        bool
	}{
		{name: "empty is root", user: "", want: specs.User{}},
		{name: "name", user: "www", want: specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{66}}},
		{name: "name and group", user: "www:data", want: specs.User{UID: 33, GID: 55}},
		{name: "known number", user: "33", want: specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{66}}},
		{name: "numbers", user: "1000:2000", want: specs.User{UID: 1000, GID: 2000}},
		{name: "unknown name", user: "nobody", bad: true},
		{name: "unknown group", user: "www:nogroup", bad: true},
		{name: "number out of range", user: "4294967296", bad: true},
		{name: "negative number", user: "-1", bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ResolveUser(tc.user, strings.NewReader(passwd), strings.NewReader(group))
			if errdefs.IsInvalidArgument(err) != tc.bad {
				t.Fatalf("ResolveUser = %v", err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("ResolveUser = %+v, want %+v", got, tc.want)
			}
		})
	}
	// Half a line of a file that is cut short would give www the number 3.
	fill := strings.Repeat("#comment\n", maxAccounts/9) + strings.Repeat("\n", maxAccounts%9)
	long := fill[len("www:x:3"):] + "www:x:33:44::/:/\n"
	for _, user := range []string{"www", "3"} {
		if got, err := ResolveUser(user, strings.NewReader(long), nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("%s in a huge file: %+v, %v", user, got, err)
		}
	}
	if got, err := ResolveUser("7:www", nil, strings.NewReader(long)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("huge groups: %+v, %v", got, err)
	}
	for _, user := range []string{"low", "high", "ok", "ok:low"} {
		const passwd = "low:x:-1:0::/:/\nhigh:x:0:4294967297::/:/\nok:x:1:1::/:/\n"
		if got, err := ResolveUser(user, strings.NewReader(passwd), strings.NewReader("low:x:-5:ok\n")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s has numbers out of range: %+v, %v", user, got, err)
		}
	}
	if got, err := ResolveUser("7:8", nil, nil); err != nil || got.UID != 7 || got.GID != 8 {
		t.Errorf("without files: %+v, %v", got, err)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("www:data", "www:x:33:44::/:/\n", "data:x:55:www\n")
	f.Add("", ":::::::\n", "\x00:")
	f.Add("1:2", "", "")
	f.Add("a", "a:x:-1:-2::/:/\n", "g:x:-3:a\n")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		got, err := ResolveUser(name, strings.NewReader(passwd), strings.NewReader(group))
		if err == nil && slices.Max(append(got.AdditionalGids, got.UID, got.GID)) > maxAccount {
			t.Errorf("ResolveUser(%q) = %+v", name, got)
		}
	})
}

func TestSmallEdits(t *testing.T) {
	spec := &specs.Spec{
		Root: &specs.Root{Path: "/host", Readonly: true}, Process: &specs.Process{Args: []string{"evil"}},
		Mounts:      []specs.Mount{{Destination: "/a", Source: "1"}, {Destination: "/a", Source: "2"}},
		Annotations: map[string]string{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri-o.ContainerName": "n"},
	}
	SetRoot(spec, Rootfs("cid"))
	if *spec.Root != (specs.Root{Path: "/run/kata-containers/cid/rootfs", Readonly: true}) {
		t.Errorf("root = %+v", *spec.Root)
	}
	pause := &specs.Process{Args: []string{"/pause"}, Terminal: true}
	UsePause(spec, pause)
	if spec.Process.Args[0] != "/pause" || spec.Process.Terminal || !pause.Terminal {
		t.Errorf("process = %+v", spec.Process)
	}
	if !IsSandbox(spec) || Name(spec) != "n" || IsSandbox(&specs.Spec{}) {
		t.Error("annotations misread")
	}
	if m := MountAt(spec, "/a"); m == nil || m.Source != "2" || MountAt(spec, "/b") != nil {
		t.Errorf("MountAt = %+v", m)
	}
}
