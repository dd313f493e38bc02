package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/resource"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// owner is a key broker that misbehaves, and a registry with an image that
// needs a key of it and one that does not.
type owner struct {
	*evidencetest.KBS
	reg *Registry
}

func newOwner(t *testing.T) owner {
	t.Helper()
	reg, keys := NewRegistry(t), NewKeys()
	layer := NewLayer(t, Gzip, append(Busybox(t), Dir("proc", 0o755))...)
	config := Config(layer)
	config.Config.Entrypoint, config.Config.Cmd = []string{"sh", "-c"}, []string{"echo opened"}
	reg.PushImage(t, "clear:1", config, layer)
	reg.Encrypt(t, "clear:1", "sealed:1", keys, "default/key/1")
	key, err := keys.Resource(t.Context(), resource.URI{Repository: "default", Type: "key", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	return owner{evidencetest.NewKBS(t, devkbs.Options{
		AllowSample: true, Resources: evidencetest.Resources(map[string]string{"default/key/1": string(key)}),
	}), reg}
}

// boot starts the agent as it ships, with an owner that may not answer.
func (o owner) boot(t *testing.T) *machineOf {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.rego")
	if err := os.WriteFile(policy, []byte(allowAll), 0o600); err != nil {
		t.Fatal(err)
	}
	return startAgent(t, buildAgent(t), &hardware{start: (*exec.Cmd).Start},
		fmt.Sprintf("policy_file = %q", policy),
		"[attestation]", `tee = "sample"`, "[attestation.token_configs.kbs]", fmt.Sprintf("url = %q", o.URL),
		"[image]", fmt.Sprintf("work_dir = %q", filepath.Join(ocispec.Base, "image")), fmt.Sprintf("extra_root_certificates = [%q]", o.reg.CA))
}

// TestBrokerOutOfOrder runs the agent as it ships beside a key broker that is
// silent, then says nonsense, then does what it should.
func TestBrokerOutOfOrder(t *testing.T) {
	if !inGuest(t) {
		return
	}
	stack, err := network.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := newOwner(t)
	asked, speak := make(chan struct{}, 64), make(chan struct{})
	o.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		select {
		case <-speak:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler) // breaks the connection
	})
	m := o.boot(t)
	m.wantServing()
	a := m.api()
	_, err = a.CreateSandbox(a.ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1"})
	a.must("create sandbox", err)

	held := make(chan error, 1)
	go func() { held <- a.pull("held", o.reg.Ref("sealed:1")) }()
	<-asked
	a.runs("other", o.reg.Ref("clear:1"))
	soon, cancel := context.WithTimeout(a.ctx, time.Second)
	defer cancel()
	if err := (api{a.AgentServiceService, t, soon}).pull("soon", o.reg.Ref("sealed:1")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller with little time: %v", err)
	}
	m.wantServing()
	close(speak)
	a.clear("a broker that breaks connections", <-held, codes.Unavailable, "kbs unreachable: connection failed")

	o.misbehave(m, a)
	o.Intercept(nil)
	a.runs("sealed", o.reg.Ref("sealed:1"))
}

// misbehave asks for containers in vain, twice for each way to answer.
func (o owner) misbehave(m *machineOf, a api) {
	const prefix = "https://github.com/confidential-containers/kbs/errors/"
	files := 0
	for round := range 2 {
		for i, c := range []struct {
			at, body string
			status   int
			code     codes.Code
			text     string
		}{
			{"auth", "<html>HOSTWORD", 200, codes.DataLoss, "kbs sent a malformed reply"},
			{"auth", `{"nonce":7,"HOSTWORD":1}`, 200, codes.DataLoss, "kbs sent a malformed reply"},
			{"auth", "<html>HOSTWORD", 302, codes.Internal, "kbs reports a fault: status 302"},
			{"auth", "HOSTWORD", 503, codes.Unavailable, "kbs unreachable: status 503"},
			{"attest", `{"type":"` + prefix + `AttestationError","detail":"HOSTWORD"}`, 401, codes.Unauthenticated, "kbs refuses the attestation"},
			{"attest", `{"token":"HOSTWORD"}`, 200, codes.DataLoss, "kbs sent a malformed reply"},
			{"resource", `{"type":"` + prefix + `PolicyDeny","detail":"HOSTWORD"}`, 401, codes.PermissionDenied, "kbs policy denies the resource"},
			{"resource", `{"type":"` + prefix + `PluginInternalError","detail":"HOSTWORD"}`, 401, codes.NotFound, "kbs has no such resource"},
			{"resource", "HOSTWORD", 200, codes.DataLoss, "kbs sent a malformed reply"},
		} {
			o.Broker.ExpireSessions()
			o.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/kbs/v0/"+c.at) {
					return false
				}
				w.Header().Set("Location", "/HOSTWORD")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			})
			a.clear(fmt.Sprintf("%s answered with %d %s", c.at, c.status, c.body), a.pull(fmt.Sprintf("bad%d.%d", round, i), o.reg.Ref("sealed:1")), c.code, c.text)
			m.wantServing()
		}
		now := m.files()
		if round > 0 && now > files+4 { // connections come and go
			a.t.Errorf("%d files are open, %d before", now, files)
		}
		files = now
	}
}

// clear wants an error of one line that names the key and nothing of the broker.
func (a api) clear(what string, err error, code codes.Code, text string) {
	a.t.Helper()
	a.refused(what, err, code, text)
	said := status.Convert(err).Message()
	if strings.ContainsAny(said, "\r\n") || strings.Contains(said, "HOSTWORD") || !strings.Contains(said, "kbs:///default/key/1") {
		a.t.Errorf("%s: %q is not a line that names the key", what, said)
	}
}

// runs has a container say that it runs.
func (a api) runs(id, ref string) {
	a.t.Helper()
	a.must("create "+id, a.pull(id, ref))
	_, err := a.StartContainer(a.ctx, &agentpb.StartContainerRequest{ContainerId: id})
	a.must("start "+id, err)
	if out, code := a.stdout(id, id), a.wait(id, id); out != "opened\n" || code != 0 {
		a.t.Errorf("%s printed %q and returned %d", id, out, code)
	}
}

// api calls the agent for at most two minutes.
func (m *machineOf) api() api {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	conn, err := socket.Dial(ctx, "unix://"+m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	m.t.Cleanup(func() {
		client.Close()
		cancel()
	})
	return api{agentpb.NewAgentServiceClient(client), m.t, ctx}
}

// files is the number of descriptors that the agent holds.
func (m *machineOf) files() int {
	m.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	return len(fds)
}
