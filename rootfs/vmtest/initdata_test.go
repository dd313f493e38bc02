package vmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// document is the text of an initdata with these entries.
func document(entries map[string]string) string {
	var b strings.Builder
	b.WriteString("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n")
	for name, text := range entries {
		fmt.Fprintf(&b, "%q = '''\n%s'''\n", name, text)
	}
	return b.String()
}

// initdataDisk is what the host attaches for a document.
func initdataDisk(t *testing.T, text string) []byte {
	t.Helper()
	disk, err := initdata.EncodeDisk([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// withDisks are machines of such disks.
func withDisks(t *testing.T, disks ...[]byte) vm.Config {
	t.Helper()
	c := vm.Config{Words: []string{"cgroup_no_v1=all"}}
	for i, d := range disks {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("disk%d.img", i))
		if err := os.WriteFile(path, d, 0o600); err != nil {
			t.Fatal(err)
		}
		c.Disks = append(c.Disks, vm.Disk{Path: path, ReadOnly: true})
	}
	return c
}

// allowAllBut is the test image's policy without one request.
func allowAllBut(t *testing.T, request string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/allow-all.rego")
	if err != nil {
		t.Fatal(err)
	}
	rule := "default " + request + " := true"
	if !bytes.Contains(text, []byte(rule)) {
		t.Fatalf("no rule for %s", request)
	}
	return strings.ReplaceAll(string(text), rule, "default "+request+" := false")
}

// TestInitdata hands a machine all that its owner may say: the policy denies a
// call, cdh.toml a registry, and aa.toml's key broker is asked for a secret.
func TestInitdata(t *testing.T) {
	ownMachine(t)
	asked := make(chan string, 16)
	broker := &httptest.Server{
		Listener: listen(t),
		Config: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			http.Error(w, "no", http.StatusForbidden)
		})},
	}
	broker.Start()
	t.Cleanup(broker.Close)
	port := broker.Listener.Addr().(*net.TCPAddr).Port
	c := withDisks(t, initdataDisk(t, document(map[string]string{
		"policy.rego": allowAllBut(t, "GetMetricsRequest"),
		"aa.toml":     fmt.Sprintf("[token_configs.kbs]\nurl = \"http://10.0.2.2:%d\"\n", port),
		"cdh.toml":    "[[image.registry_config.registry]]\nlocation = \"10.0.2.2:1\"\nblocked = true\n",
	})))
	c.Words = append(c.Words, "agent.guest_components_procs=api-server-rest")
	c.Network = &vm.Network{MAC: cardMAC}
	c.Shares = sharedConfig(t).Shares
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	g.setUpCard(t)

	if _, err := g.Agent.GetMetrics(t.Context(), &agentpb.GetMetricsRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the policy: %v", err)
	}
	spec := containerSpec("pulled", "true")
	spec.Root.Path = "/run/kata-containers/pulled/rootfs"
	_, err := g.Agent.CreateContainer(t.Context(), &agentpb.CreateContainerRequest{
		ContainerId: "pulled", ExecId: "pulled", OCI: spec,
		Storages: []*agentpb.Storage{{
			Driver: "image_guest_pull", Source: "10.0.2.2:1/none:1", Fstype: "overlay", MountPoint: spec.Root.Path,
			DriverOptions: []string{`image_guest_pull={"metadata":{}}`},
		}},
	})
	if err == nil || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("the registries of cdh.toml: %v", err)
	}
	g.start(t, "secret", containerSpec("secret", "wget", "-q", "-O", "-", "http://127.0.0.1:8006/cdh/resource/default/key/1"))
	if code := g.wait(t, "secret"); code == 0 {
		t.Error("a secret came from nowhere")
	}
	select {
	case path := <-asked:
		if path != "/kbs/v0/auth" {
			t.Errorf("the broker of aa.toml was asked for %s", path)
		}
	default:
		t.Error("the broker of aa.toml was not asked")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// setUpCard gives the guest the address that QEMU expects.
func (g *Guest) setUpCard(t testing.TB) {
	t.Helper()
	call(t, g.Agent.UpdateInterface, &agentpb.UpdateInterfaceRequest{Interface: &typespb.Interface{
		Device: "eth0", Name: "eth0", Mtu: 1500, HwAddr: cardMAC,
		IPAddresses: []*typespb.IPAddress{{Family: typespb.IPFamily_v4, Address: "10.0.2.15", Mask: "24"}},
	}})
	call(t, g.Agent.UpdateRoutes, &agentpb.UpdateRoutesRequest{Routes: &agentpb.Routes{Routes: []*typespb.Route{
		{Dest: "0.0.0.0/0", Gateway: "10.0.2.2", Device: "eth0"},
	}}})
}

// TestWrongInitdata sees the reason on the console, in one line, and the machine
// off: it must not start as if there were none.
func TestWrongInitdata(t *testing.T) {
	ownMachine(t)
	good := initdataDisk(t, document(map[string]string{"aa.toml": ""}))
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint64(long[8:], 1<<40)
	torn := bytes.Clone(good)
	torn[40] ^= 0xff
	for _, tc := range []struct {
		name, want string
		disks      [][]byte
	}{
		{"length of a terabyte", "length exceeds", [][]byte{long}},
		{"damaged", "gzip", [][]byte{torn}},
		{"two disks", "initdata on /dev/vda and /dev/vdb", [][]byte{good, good}},
		{"no policy but noise", "policy.rego", [][]byte{initdataDisk(t, document(map[string]string{"policy.rego": "noise"}))}},
		{"settings that do not exist", "aa.toml", [][]byte{initdataDisk(t, document(map[string]string{"aa.toml": "token_configs.kbs.url = 7\n"}))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			machine := Start(t, withDisks(t, tc.disks...))
			defer machine.Stop()
			defer showConsole(t, machine)
			waitOff(t, machine)
			said := 0
			for line := range strings.Lines(machine.Console()) {
				if strings.HasPrefix(line, "coffer-agent:") && strings.Contains(line, tc.want) && strings.Contains(line, "initdata") {
					said++
				}
				if strings.Contains(line, readyText) {
					t.Error("the agent served")
				}
			}
			if said != 1 {
				t.Errorf("the console says %d times that %s is wrong with the initdata", said, tc.want)
			}
		})
	}
}

// TestRefusalIsTold asks a guest that must not start: for a few seconds every
// call is answered with the reason, and then the machine is off.
func TestRefusalIsTold(t *testing.T) {
	ownMachine(t)
	machine := Start(t, withDisks(t, initdataDisk(t, "noise")))
	defer machine.Stop()
	defer showConsole(t, machine)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	if err := machine.WaitConsole(ctx, "refuses to start"); err != nil {
		t.Fatal(err)
	}
	conn, err := machine.Dial(ctx, agentPort)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	_, checked := agentpb.NewHealthClient(client).Check(ctx, &agentpb.CheckRequest{})
	_, created := agentpb.NewAgentServiceClient(client).CreateSandbox(ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	for what, err := range map[string]error{"Check": checked, "CreateSandbox": created} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "initdata on /dev/vda") {
			t.Errorf("%s: %v", what, err)
		}
	}
	waitOff(t, machine)
}

// What is on other disks is none of the agent's business.
func TestDisksWithoutInitdata(t *testing.T) {
	ownMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	machine := Start(t, withDisks(t, make([]byte, 4096), []byte("initdat"), bytes.Repeat([]byte{0xff}, 512)))
	defer machine.Stop()
	defer showConsole(t, machine)
	if err := machine.WaitConsole(ctx, readyText); err != nil {
		t.Error(err)
	}
}
