package rpc

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// canary stands for what a workload must not have on its host's console.
const canary = "canary-7f3a"

// journal is what the log has shown.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// TestNothingLeaks sends a secret in every place where a workload has one, in
// calls that succeed, fail and are denied. Neither the log, at its usual level,
// nor an error shows it.
func TestNothingLeaks(t *testing.T) {
	log := &journal{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "echo "+canary+"; exec cat")
	var errs []string
	seen := func(_ any, err error) {
		if err != nil {
			errs = append(errs, err.Error())
		}
	}
	process := func(args ...string) *agentpb.Process {
		return &agentpb.Process{Args: args, Env: []string{"TOKEN=" + canary}, Cwd: "/", User: &agentpb.User{}}
	}
	exec := func(id string, p *agentpb.Process) {
		seen(a.ExecProcess(t.Context(), &agentpb.ExecProcessRequest{ContainerId: "c1", ExecId: id, Process: p}))
	}
	write := func() {
		seen(a.WriteStdin(t.Context(), &agentpb.WriteStreamRequest{ContainerId: "c1", ExecId: "c1", Data: []byte(canary)}))
	}
	exec("e1", process("/bin/true", canary))
	exec("e1", process("/bin/true", canary)) // a duplicate, maybe
	exec("e2", process("/bin/none", canary))
	exec("", process("/bin/true", canary))
	bad := process("/bin/true", canary)
	bad.Capabilities = &agentpb.LinuxCapabilities{Bounding: []string{"CAP_NONE"}}
	exec("e3", bad)
	write()
	seen(a.ReadStdout(t.Context(), &agentpb.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 100}))
	seen(a.CopyFile(t.Context(), &agentpb.CopyFileRequest{Path: "/etc/shadow", FileMode: 0o100600, FileSize: 11, Data: []byte(canary)}))
	seen(a.SetPolicy(t.Context(), &agentpb.SetPolicyRequest{Policy: "package x\n# " + canary}))
	for _, request := range []string{"ExecProcessRequest", "WriteStreamRequest", "CopyFileRequest", "SetPolicyRequest"} {
		f.rules.deny(request)
	}
	exec("e4", process("/bin/true", canary))
	write()
	seen(a.CopyFile(t.Context(), &agentpb.CopyFileRequest{Path: "/run/kata-containers/shared/containers/x", FileMode: 0o100600, FileSize: 11, Data: []byte(canary)}))
	seen(a.SetPolicy(t.Context(), &agentpb.SetPolicyRequest{Policy: "package x\n# " + canary}))
	if len(errs) < 7 {
		t.Errorf("only %d calls failed: %q", len(errs), errs)
	}
	if !strings.Contains(log.String(), "ExecProcessRequest") {
		t.Fatal("nothing was logged")
	}
	for _, text := range append(errs, log.String()) {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("shown: %s", text[max(0, i-200):min(len(text), i+50)])
		}
	}
}

// TestHugeSpecs sends what fits into a message and is out of all proportion. The
// agent says no, or does it, and is there afterwards.
func TestHugeSpecs(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	long := strings.Repeat("x", 3<<20)
	many := make([]string, 100_000)
	annotations := make(map[string]string, 50_000)
	mounts := make([]*agentpb.Mount, 50_000)
	for i := range many {
		many[i] = "A=b"
	}
	for i := range mounts {
		annotations[strings.Repeat("k", i%7)+string(rune('a'+i%26))+strings.Repeat("z", i%11)] = "v"
		mounts[i] = &agentpb.Mount{Destination: "/m", Source: "tmpfs", Type: "tmpfs"}
	}
	for name, change := range map[string]func(*agentpb.Spec){
		"long argument":    func(s *agentpb.Spec) { s.Process.Args = []string{"/bin/true", long} },
		"long environment": func(s *agentpb.Spec) { s.Process.Env = []string{"A=" + long} },
		"many variables":   func(s *agentpb.Spec) { s.Process.Env = many },
		"many arguments":   func(s *agentpb.Spec) { s.Process.Args = append([]string{"/bin/true"}, many...) },
		"many mounts":      func(s *agentpb.Spec) { s.Mounts = mounts },
		"many annotations": func(s *agentpb.Spec) { s.Annotations = annotations },
		"long directory":   func(s *agentpb.Spec) { s.Process.Cwd = "/" + long },
		"long host name":   func(s *agentpb.Spec) { s.Hostname = long },
	} {
		t.Run(name, func(t *testing.T) {
			spec := &agentpb.Spec{
				Version: "1.0.2", Root: &agentpb.Root{Path: "/nowhere"}, Linux: &agentpb.Linux{},
				Process: &agentpb.Process{Args: []string{"/bin/true"}, Cwd: "/", User: &agentpb.User{}},
			}
			change(spec)
			_, err := a.CreateContainer(t.Context(), &agentpb.CreateContainerRequest{ContainerId: "c1", ExecId: "c1", OCI: spec})
			if err == nil {
				t.Error("a root that is nowhere was accepted")
			} else if len(err.Error()) > maxText+200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if _, err := agentpb.NewHealthClient(f.dial(t)).Check(t.Context(), &agentpb.CheckRequest{}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
