package container_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
)

// note is a hook that appends word and the status it was told to a file.
func note(file, word string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c",
		`read -r state; s=${state#*status\":\"}; echo ` + word + ` ${s%%\"*} >>` + file}}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every hook runs once, at its time, the guest's behind those of the spec. The
// two that run inside see the container's files.
func TestRealHooks(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	file := filepath.Join(t.TempDir(), "notes")
	l.write(t, "tmp/inside", "", 0o666)
	spec := l.spec("hooks", shell("cat /tmp/inside"))
	spec.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{note(file, "prestart")},
		CreateRuntime:   []specs.Hook{note(file, "createRuntime")},
		CreateContainer: []specs.Hook{note(filepath.Join(l.rootfs, "tmp/inside"), "createContainer")},
		StartContainer:  []specs.Hook{note("/tmp/inside", "startContainer")},
		Poststart:       []specs.Hook{note(file, "poststart")},
		Poststop:        []specs.Hook{note(file, "poststop")},
	}
	guest := container.GuestHooks{
		Prestart:  []specs.Hook{{Path: "/no/such/hook"}, note(file, "guest-prestart")},
		Poststart: []specs.Hook{{Path: "/bin/false"}, note(file, "guest-poststart")},
		Poststop:  []specs.Hook{{Path: "/bin/false"}, note(file, "guest-poststop")},
	}
	c, err := container.New(patient(t), l.driver, "hooks", spec, container.Options{GuestHooks: guest})
	if err != nil {
		t.Fatal(err)
	}
	created := "prestart creating\nguest-prestart creating\ncreateRuntime creating\n"
	if got := read(t, file); got != created {
		t.Errorf("create ran %q, want %q", got, created)
	}
	p := start(t, c)
	if got, want := string(readAll(t, p.ReadStdout, 100)), "createContainer creating\nstartContainer created\n"; got != want {
		t.Errorf("inside ran %q, want %q", got, want)
	}
	wait(t, p, 0)
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	want := created + "poststart running\nguest-poststart running\npoststop stopped\nguest-poststop stopped\n"
	if got := read(t, file); got != want {
		t.Errorf("the whole life ran %q, want %q", got, want)
	}
}

// Hooks find the container's bundle and process in what they read.
func TestRealHookState(t *testing.T) {
	l := needLab(t)
	file := filepath.Join(t.TempDir(), "state")
	spec := l.spec("state", shell("true"))
	spec.Annotations = map[string]string{"a": "b"}
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + file + "; env >>" + file}, Env: []string{"ONLY=mine"},
	}}}
	c, err := container.New(patient(t), l.driver, "state", spec, container.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pid := c.InitPid()
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	text, env, _ := strings.Cut(read(t, file), "}}")
	var state specs.State
	if err := json.Unmarshal([]byte(text+"}}"), &state); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if state.ID != "state" || state.Pid != pid || state.Bundle != filepath.Dir(l.rootfs) || state.Annotations["a"] != "b" {
		t.Errorf("state is %+v, pid %d", state, pid)
	}
	if !strings.Contains(env, "ONLY=mine") || strings.Contains(env, "HOME=") {
		t.Errorf("environment is %q", env)
	}
}

// A hook of the spec that fails before the program fails the create, one after
// it ends the container, and one after the end changes nothing.
func TestRealHookFails(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	one := 1
	bad := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo the reason >&2; exit 3"}}}
	for _, tc := range []struct {
		name, want string
		hooks      specs.Hooks
	}{
		{"prestart", "the reason", specs.Hooks{Prestart: bad}},
		{"createRuntime", "the reason", specs.Hooks{CreateRuntime: bad}},
		{"createContainer", "the reason", specs.Hooks{CreateContainer: bad}},
		{"too slow", "timeout of 1.0s", specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := l.spec("bad", shell("true"))
			spec.Hooks = &tc.hooks
			_, err := container.New(patient(t), l.driver, "bad", spec, container.Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q in it", err, tc.want)
			}
			if dirs := l.cgroupDirs(t); len(dirs) > 0 {
				t.Errorf("cgroups left: %s", dirs)
			}
		})
	}
	c := l.run(t, "after", shell("exec sleep 100"), func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststart: bad, Poststop: bad}
	})
	if err := c.Start(patient(t)); err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("Start with a failing poststart = %v", err)
	}
	wait(t, process(t, c, ""), 137)
	if err := c.Destroy(patient(t)); err != nil {
		t.Errorf("Destroy with a failing poststop = %v", err)
	}
	if err := c.Exec(patient(t), "e", shell("true")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Exec after the end = %v", err)
	}
}
