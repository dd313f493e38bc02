package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/agent/policy"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// rulesOfImages accept one image.
const rulesOfImages = rulesOfAPI + `
VerifiedImage { endswith(input.image.reference, "/app:1") } else := false { print("image is not pinned") }
`

// pull asks for a container of an image that runs what the image says.
func (a api) pull(id, ref string) error {
	text, err := json.Marshal(map[string]any{"metadata": map[string]string{"io.kubernetes.cri.container-type": "container"}})
	a.must("encode", err)
	root := filepath.Join(ocispec.Base, id, "rootfs")
	_, err = a.CreateContainer(a.ctx, &agentpb.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*agentpb.Storage{{
			Driver: "image_guest_pull", Source: ref, Fstype: "overlay", MountPoint: root,
			DriverOptions: []string{"image_guest_pull=" + string(text)},
		}},
		OCI: &agentpb.Spec{
			Version: "1.0.2", Root: &agentpb.Root{Path: root},
			Process: &agentpb.Process{Env: []string{"PATH=/bin"}, Cwd: "/", User: &agentpb.User{}, NoNewPrivileges: true},
			Mounts:  []*agentpb.Mount{{Destination: "/proc", Source: "proc", Type: "proc"}},
			Linux: &agentpb.Linux{
				CgroupsPath: "/images/" + id,
				Namespaces:  []*agentpb.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			},
		},
	})
	return err
}

// TestImages lets the host have images pulled, good and bad ones, by way of the
// socket and from a registry with TLS.
func TestImages(t *testing.T) {
	if !inGuest(t) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	reg := NewRegistry(t)
	bad := badImages(t, reg)
	work := filepath.Join(ocispec.Base, "image")
	agent := bootAgent(t, rulesOfImages,
		func(t *testing.T, p *process, stack *network.Stack, engine *policy.Rego) parts {
			p.config.Image.WorkDir, p.config.Image.ExtraRoots = work, []string{reg.CA}
			p.config.Attestation.TEE = "sample"
			return realAgent(t, p, stack, engine)
		})
	defer agent.end(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := api{agentpb.NewAgentServiceClient(agent.client), t, ctx}
	_, err = a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1"})
	a.must("create sandbox", err)
	for _, b := range bad {
		err := a.pull("bad1", b.ref)
		a.refused(b.ref, err, b.code, b.text)
		for _, must := range []string{reg.Host, "create container bad1"} {
			if err == nil || !strings.Contains(err.Error(), must) {
				t.Errorf("%s: %v does not name %s", b.ref, err, must)
			}
		}
		nothingLeft(t, work)
	}
	playImage(a, reg)
	_, err = a.DestroySandbox(ctx, &agentpb.DestroySandboxRequest{})
	a.must("destroy", err)
	nothingLeft(t, work)
}

type badImage struct {
	ref  string
	code codes.Code
	text string
}

func badImages(t *testing.T, reg *Registry) []badImage {
	layer := func(body string) Layer { return NewLayer(t, Gzip, File("a", strings.Repeat(body, 20000))) }
	short, wrong, server, refused := layer("short"), layer("wrong"), layer("server"), layer("refused")
	reg.Push(t, "short:1", short)
	reg.Push(t, "wrong:1", wrong)
	reg.Push(t, "server:1", server)
	reg.Push(t, "refused:1", refused)
	reg.Push(t, "key:1", layer("key"))
	reg.Encrypt(t, "key:1", "key:enc", NewKeys(), "default/key/unknown")
	reg.Break(Fault{Path: short.Digest().String(), Short: 10})
	reg.Break(Fault{Path: wrong.Digest().String(), Flip: true})
	reg.Break(Fault{Path: server.Digest().String(), Status: 500})
	reg.Break(Fault{Path: "/login/manifests", Status: 401})
	return []badImage{
		{reg.Ref("none:1"), codes.NotFound, "not found (404)"},
		{reg.Ref("login:1"), codes.Unauthenticated, "unauthorized (401)"},
		{reg.Ref("short:1"), codes.DataLoss, "layer 1 of "},
		{reg.Ref("wrong:1"), codes.DataLoss, "layer 1 of "},
		{reg.Ref("server:1"), codes.Unavailable, "unavailable (500)"},
		{reg.Ref("key:enc"), codes.FailedPrecondition, "kbs:///default/key/unknown"},
		{reg.Ref("refused:1"), codes.PermissionDenied, "VerifiedImage is blocked by policy: agent_policy:21: image is not pinned"},
	}
}

// nothingLeft looks for what a refused container might leave.
func nothingLeft(t *testing.T, work string) {
	t.Helper()
	left, err := mount.Table(ocispec.Base)
	if err != nil || len(left) != 0 {
		t.Errorf("left mounted: %v, %v", left, err)
	}
	for _, dir := range []string{filepath.Join(work, "containers"), filepath.Join(work, "staging")} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(ocispec.Base, "bad1")); err == nil {
		t.Error("the bundle is left")
	}
}

// playImage runs two containers of one image, with the program, the user and
// the environment that the image names.
func playImage(a api, reg *Registry) {
	layer := NewLayer(a.t, Zstd, append(Busybox(a.t), Dir("proc", 0o755))...)
	config := Config(layer)
	config.Config.Entrypoint, config.Config.Cmd = []string{"sh", "-c"}, []string{"echo $FROM $(id -u):$(id -g)"}
	config.Config.Env, config.Config.User = []string{"FROM=image"}, "12:34"
	reg.PushImage(a.t, "app:1", config, layer)
	for _, id := range []string{"good1", "good2"} {
		a.must("create", a.pull(id, reg.Ref("app:1")))
		_, err := a.StartContainer(a.ctx, &agentpb.StartContainerRequest{ContainerId: id})
		a.must("start", err)
		if out, code := a.stdout(id, id), a.wait(id, id); out != "image 12:34\n" || code != 0 {
			a.t.Errorf("printed %q and returned %d", out, code)
		}
	}
	if n := reg.Count("GET", layer.Digest().String()); n != 1 {
		a.t.Errorf("layer was fetched %d times", n)
	}
}
