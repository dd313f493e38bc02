package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// buffer may be written from several goroutines, as a terminal may.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func ctl(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	var out, errs buffer
	code := execute(t.Context(), args, stdio{stdin, &out, &errs})
	return result{code, out.String(), errs.String()}
}

func (r result) want(t *testing.T, code int, out, errs string) {
	t.Helper()
	if r.code != code || r.out != out || !strings.Contains(r.err, errs) || errs == "" && r.err != "" {
		t.Errorf("got code %d\nout %q\nerr %q\nwant code %d\nout %q\nerr with %q", r.code, r.out, r.err, code, out, errs)
	}
}

func TestRun(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	tests := []struct {
		name  string
		stdin string
		args  []string
		code  int
		out   string
		err   string
	}{
		{"image's program", "", []string{"img"}, 0, "the image's own program\n", ""},
		{"command", "", []string{"img", "--", "echo", "-x", "y"}, 0, "-x y\n", ""},
		{"exit code and stderr", "", []string{"img", "--", "fail", "42"}, 42, "", "going down\n"},
		{"input", "hello", []string{"-i", "img", "--", "cat"}, 0, "hello", ""},
		{"1 MiB through and back", big, []string{"-i", "img", "--", "cat"}, 0, big, ""},
		{"input is closed without -i", "hello", []string{"img", "--", "cat"}, 0, "", ""},
		{"terminal without input", "", []string{"-t", "img", "--", "echo", "a"}, 0, "a\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, addr := serve(t)
			args := append([]string{"--address", addr, "run"}, tt.args...)
			ctl(t, strings.NewReader(tt.stdin), args...).want(t, tt.code, tt.out, tt.err)
			if len(f.containers) != 0 {
				t.Error("the container is still there")
			}
		})
	}
}

// TestRunAsksAsAShimDoes looks at the order of calls and the request.
func TestRunAsksAsAShimDoes(t *testing.T) {
	f, addr := serve(t)
	r := ctl(t, nil, "--address", addr, "run", "--keep", "--name", "web", "-e", "A=b", "-u", "7:8", "registry/img:1", "--", "echo")
	r.want(t, 0, "\n", "")
	want := "GetMetricsRequest CreateSandboxRequest CreateContainerRequest StartContainerRequest"
	if got := strings.Join(f.called(), " "); !strings.HasPrefix(got, want) {
		t.Errorf("calls: %s", got)
	}
	req := f.containers["web"].req
	st := req.Storages[0]
	if st.Driver != "image_guest_pull" || st.Source != "registry/img:1" || st.Fstype != "overlay" ||
		st.MountPoint != "/run/kata-containers/web/rootfs" || req.OCI.Root.Path != st.MountPoint {
		t.Errorf("storage: %v, root %v", st, req.OCI.Root)
	}
	if o := st.DriverOptions; len(o) != 1 || !strings.HasPrefix(o[0], `image_guest_pull={"metadata":{`) ||
		!strings.Contains(o[0], `"io.kubernetes.cri.container-type":"container"`) {
		t.Errorf("driver options: %q", o)
	}
	p := req.OCI.Process
	if p.User.UID != 7 || p.User.GID != 8 || p.Env[len(p.Env)-1] != "A=b" || p.Cwd != "/" || !p.NoNewPrivileges {
		t.Errorf("process: %v", p)
	}
}

// TestRunLeavesTheProcessToTheImage checks that nothing is filled in that the
// guest takes from the verified image.
func TestRunLeavesTheProcessToTheImage(t *testing.T) {
	f, addr := serve(t)
	ctl(t, nil, "--address", addr, "run", "--keep", "--name", "web", "img")
	p := f.containers["web"].req.OCI.Process
	if len(p.Args) != 0 || len(p.Env) != 0 || p.Cwd != "" {
		t.Errorf("process: %v", p)
	}
}

func TestRunInExistingSandbox(t *testing.T) {
	f, addr := serve(t)
	f.sandboxes = 1
	ctl(t, nil, "--address", addr, "run", "img").want(t, 0, "the image's own program\n", "")
	ctl(t, nil, "--address", addr, "run", "--detach", "--name", "one", "img", "--", "sleep").want(t, 0, "one\n", "")
	f.calls = nil
	ctl(t, nil, "--address", addr, "run", "img").want(t, 0, "the image's own program\n", "")
	if strings.Contains(strings.Join(f.called(), " "), "CreateSandbox") {
		t.Error("a sandbox was created beside a running container")
	}
}

func TestRunSpecFile(t *testing.T) {
	f, addr := serve(t)
	file := filepath.Join(t.TempDir(), "config.json")
	spec := `{"ociVersion":"1.2.0","root":{"path":"rootfs","readonly":true},"linux":{},
		"process":{"cwd":"/","user":{"uid":0,"gid":0},"args":["fail","3"],"env":["X=y"]}}`
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	ctl(t, nil, "--address", addr, "run", "--keep", "--name", "web", "--spec", file, "img").want(t, 3, "", "going down")
	if o := f.containers["web"].req.OCI; o.Root.Path != "/run/kata-containers/web/rootfs" || !o.Root.Readonly || o.Process.Env[0] != "X=y" {
		t.Errorf("spec: %v", o)
	}
}

// TestRunFailures checks that each failure is one clear line, has its code, and
// leaves no container.
func TestRunFailures(t *testing.T) {
	tests := []struct {
		deny string
		code int
		want string
	}{
		{"CreateSandboxRequest", 3, "agent-ctl: CreateSandbox: CreateSandboxRequest is blocked by policy: no rule [2J (PermissionDenied)\n"},
		{"CreateContainerRequest", 3, "CreateContainer: CreateContainerRequest is blocked by policy"},
		{"StartContainerRequest", 3, "StartContainer: StartContainerRequest is blocked by policy"},
		{"WaitProcessRequest", 3, "WaitProcess: WaitProcessRequest is blocked by policy"},
		{"ReadStreamRequest", 3, "ReadStreamRequest is blocked by policy"},
		{"CloseStdinRequest", 0, ""},
		{"GetMetricsRequest", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.deny, func(t *testing.T) {
			f, addr := serve(t)
			f.denied[tt.deny] = true
			r := ctl(t, nil, "--address", addr, "run", "img")
			if r.code != tt.code || !strings.Contains(r.err, tt.want) || strings.Count(r.err, "\n") > 1 {
				t.Errorf("code %d, err %q; want %d, %q", r.code, r.err, tt.code, tt.want)
			}
			if len(f.containers) != 0 {
				t.Error("the container is still there")
			}
		})
	}
}

// TestRunShowsThePull holds the create back until progress has been printed.
func TestRunShowsThePull(t *testing.T) {
	f, addr := serve(t)
	f.pulling = make(chan struct{})
	f.metrics = `coffer_image_pull_bytes{reference="img",phase="fetch"} 1048576` + "\n" +
		`coffer_image_pull_bytes{reference="img",phase="unpack"} 0` + "\n"
	var out, errs buffer
	code := make(chan int)
	go func() {
		code <- execute(t.Context(), []string{"--address", addr, "run", "img"}, stdio{strings.NewReader(""), &out, &errs})
	}()
	for !strings.Contains(errs.String(), "pull img: fetch") {
		time.Sleep(10 * time.Millisecond)
	}
	close(f.pulling)
	if c := <-code; c != 0 || strings.Contains(errs.String(), "unpack") {
		t.Errorf("code %d, err %q", c, errs.String())
	}
}

func TestRunCreateTimeout(t *testing.T) {
	f, addr := serve(t)
	f.pulling = make(chan struct{})
	r := ctl(t, nil, "--address", addr, "run", "-q", "--create-timeout", "30ms", "img")
	if r.code != exitUnreachable {
		t.Errorf("code %d, err %q", r.code, r.err)
	}
}

// TestRunPassesSignals interrupts ourselves while the workload sleeps.
func TestRunPassesSignals(t *testing.T) {
	_, addr := serve(t)
	var out, errs buffer
	code := make(chan int)
	go func() {
		code <- execute(t.Context(), []string{"--address", addr, "run", "img", "--", "sleep"}, stdio{strings.NewReader(""), &out, &errs})
	}()
	for out.String() == "" {
		time.Sleep(5 * time.Millisecond)
	}
	if err := unix.Kill(unix.Getpid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != 130 {
		t.Errorf("code %d, err %q", c, errs.String())
	}
}

// brokenPipe is a reader that has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }

func TestRunEndsWhenNobodyReads(t *testing.T) {
	f, addr := serve(t)
	var errs buffer
	code := execute(t.Context(), []string{"--address", addr, "run", "img", "--", "sleep"}, stdio{strings.NewReader(""), brokenPipe{}, &errs})
	if code != exitFailure || len(f.containers) != 0 {
		t.Errorf("code %d, %d containers, err %q", code, len(f.containers), errs.String())
	}
}

func TestExec(t *testing.T) {
	f, addr := serve(t)
	ctl(t, nil, "--address", addr, "run", "-d", "--name", "web", "img", "--", "sleep").want(t, 0, "web\n", "")
	ctl(t, nil, "--address", addr, "exec", "web", "echo", "-x").want(t, 0, "-x\n", "")
	ctl(t, nil, "--address", addr, "exec", "web", "fail", "9").want(t, 9, "", "going down\n")
	ctl(t, strings.NewReader("in"), "--address", addr, "exec", "-i", "web", "cat").want(t, 0, "in", "")
	ctl(t, nil, "--address", addr, "exec", "nope", "echo").want(t, 4, "", "ExecProcess: invalid container id")
	ctl(t, nil, "--address", addr, "exec", "-it", "web", "echo").want(t, 2, "", "needs a terminal")
	ctl(t, nil, "--address", addr, "logs", "nope").want(t, 4, "", "invalid container id")
	f.denied["ExecProcessRequest"] = true
	ctl(t, nil, "--address", addr, "exec", "web", "echo").want(t, 3, "", "blocked by policy")
}

func TestStop(t *testing.T) {
	f, addr := serve(t)
	for _, name := range []string{"soft", "hard"} {
		args := []string{"--address", addr, "run", "-d", "--name", name, "img", "--", "sleep"}
		if name == "hard" {
			args = append(args, "hard")
		}
		ctl(t, nil, args...).want(t, 0, name+"\n", "")
	}
	r := ctl(t, nil, "--address", addr, "stop", "--grace", "50ms", "soft", "hard", "nope")
	r.want(t, 4, "ID    EXIT  KILLED\nsoft  143   false\nhard  137   true\n", "nope: SignalProcess: invalid container id")
	if len(f.containers) != 0 {
		t.Error("a container is still there")
	}
	ctl(t, nil, "--address", addr, "stop", "--sandbox").want(t, 0, "", "")
	ctl(t, nil, "--address", addr, "stop").want(t, 2, "", "name containers")
	ctl(t, nil, "--address", addr, "stop", "--sandbox", "web").want(t, 2, "", "name containers")
}

func TestLogs(t *testing.T) {
	f, addr := serve(t)
	ctl(t, nil, "--address", addr, "run", "-d", "--name", "web", "img", "--", "sleep").want(t, 0, "web\n", "")
	p, err := f.proc("web", "")
	if err != nil {
		t.Fatal(err)
	}
	for !func() bool { p.stdout.mu.Lock(); defer p.stdout.mu.Unlock(); return len(p.stdout.buf) > 0 }() {
		time.Sleep(time.Millisecond)
	}
	ctl(t, nil, "--address", addr, "logs", "web").want(t, 0, "asleep\n", "what others have read is not shown")
	if _, err := f.signal(context.Background(), &agentpb.SignalProcessRequest{ContainerId: "web", Signal: 15}); err != nil {
		t.Fatal(err)
	}
	p.stdout.write([]byte("last words\n"))
	ctl(t, nil, "--address", addr, "logs", "-f", "web").want(t, 0, "last words\n", "reading the streams of web")
}

func TestPs(t *testing.T) {
	f, addr := serve(t)
	ctl(t, nil, "--address", addr, "-o", "json", "ps").want(t, 0, "[]\n", "")
	ctl(t, nil, "--address", addr, "run", "-d", "--name", "web", "img", "--", "sleep")
	ctl(t, nil, "--address", addr, "ps").want(t, 0,
		"ID   STATE    PID  IMAGE  DIGEST\nweb  running  7    img    sha256:1\n", "")
	f.denied["GetMetricsRequest"] = true
	ctl(t, nil, "--address", addr, "ps").want(t, 3, "", "GetMetricsRequest is blocked by policy")
}
