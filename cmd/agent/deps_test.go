package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/coffer-cc/coffer/"

// arrows is the whole list of who may import whom between the floors. A key
// and each value is a folder; the longest matching key decides. What is not
// listed is forbidden. Packages of one top-level folder may import each other
// unless their own key says otherwise.
var arrows = map[string][]string{
	"imagepull":         {"imagepull", "mount"},
	"agent":             {"agent", "mount"},
	"agent/reexec":      {},
	"agent/pid1":        {},
	"rpc":               {"rpc", "agent", "mount", "evidence", "protos"},
	"rpc/wire":          {"rpc/wire", "protos"},
	"rpc/socket":        {},
	"rpc/tracing":       {},
	"cmd/agent":         {"agent", "mount", "evidence", "protos", "rpc", "imagepull"},
	"cmd/agent-ctl":     {"rpc/socket", "rpc/wire", "protos", "evidence", "imagepull/registry", "imagepull/decrypt", "imagepull/encrypt", "rootfs/vm"},
	"cmd/mkguest":       {"rootfs/image"},
	"rootfs/image":      {"rootfs/image", "rpc/socket"},
	"rootfs/vm":         {"rootfs/image", "rootfs/vm", "rpc/socket"},
	"rootfs/pause":      {},
	"mount":             {"mount"},
	"evidence":          {"evidence"},
	"evidence/secret":   {},
	"evidence/resource": {},
	"evidence/initdata": {},
	"protos":            {"protos"},
}

// leaves are plain types that everybody may import.
var leaves = []string{"evidence/secret", "evidence/resource", "evidence/initdata"}

// edge names the one package that may import each third party among what is
// linked into the agent; a second entry needs its reason here.
var edge = map[string][]string{
	"github.com/opencontainers/runc": {
		"agent/container",
		"agent/reexec", // the child half of the same library
	},
	"github.com/opencontainers/cgroups": {"agent/container"},
	"github.com/open-policy-agent/opa":  {"agent/policy"},
	"github.com/containers/ocicrypt": {
		"imagepull/decrypt",
		"imagepull/encrypt", // the other direction, not linked into the agent
	},
	"github.com/containers/image": {
		"imagepull/registry",
		"imagepull/signature", // the same library's policy engine
		"imagepull/encrypt",   // not linked into the agent
	},
	"github.com/BurntSushi/toml": {
		"evidence/initdata",
		"evidence/devkbs", // the rules of its operator; not linked into the agent
	},
	"github.com/go-jose/go-jose": {
		"evidence/kbs",
		"evidence/devkbs", // the other side; not linked into the agent
		"evidence/verify", // not linked into the agent
	},
	"golang.org/x/net": {"evidence/kbs"},
	"github.com/klauspost/compress": {
		"imagepull/format",
		"rootfs/image",        // not linked into the agent
		"cmd/agent/benchtest", // not linked into the agent
	},
	"github.com/google/go-sev-guest": {
		"evidence/tee",    // of it only the layout of the device's requests
		"evidence/verify", // not linked into the agent
	},
	"github.com/google/go-tdx-guest": {"evidence/verify"}, // not linked into the agent
	"github.com/google/go-tpm": {
		"evidence/tpm",
		"evidence/verify", // of it the structures; not linked into the agent
	},
	"github.com/docker/distribution":  {"imagepull/registry"},
	"github.com/moby/sys/mountinfo":   {"mount"},
	"github.com/moby/sys/user":        {"agent/ocispec"},
	"github.com/sirupsen/logrus":      {"agent/logging"},
	"gopkg.in/yaml.v3":                {"imagepull/registry"},
	"github.com/vishvananda/netlink":  {"agent/network"},
	"tags.cncf.io":                    {"agent/devices"},
	"github.com/mdlayher/vsock":       {"rpc/socket"},
	"go.opentelemetry.io":             {"rpc/tracing"}, // linked with the tag tracing alone
	"github.com/containerd/otelttrpc": {"rpc/tracing"}, // linked with the tag tracing alone
	"github.com/containerd/ttrpc": {
		"rpc",
		"rpc/tracing", // the type of what comes before a call
		"cmd/agent-ctl",
		"protos/agentpb", // generated code
	},
}

// vocabulary are third parties that are types and errors rather than work, and
// the standard library's own annex: every package may speak them.
var vocabulary = []string{
	"github.com/containerd/errdefs",
	"github.com/opencontainers/go-digest",
	"github.com/opencontainers/image-spec",
	"github.com/opencontainers/runtime-spec",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
}

// neverLinked are packages that must not reach the guest binary.
var neverLinked = []string{"evidence/devkbs", "evidence/verify", "imagepull/encrypt"}

type goPackage struct {
	ImportPath string
	Imports    []string
}

// goList runs go list. The result is not cached by the test runner, so the
// test must run with -count=1.
func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func isTest(path string) bool {
	return strings.HasSuffix(path, "test")
}

// allowed tells whether from may import to, both below the module.
func allowed(from, to string) bool {
	if isTest(from) || slices.Contains(leaves, to) {
		return true
	}
	if isTest(to) {
		return false
	}
	key := ""
	for k := range arrows {
		if below(from, k) && len(k) > len(key) {
			key = k
		}
	}
	return slices.ContainsFunc(arrows[key], func(f string) bool { return below(to, f) })
}

func TestFloors(t *testing.T) {
	for _, p := range goList(t, "./...") {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module); ours {
				if !allowed(from, to) {
					t.Errorf("%s imports %s: no arrow leads there", from, to)
				}
				continue
			}
			for lib, homes := range edge {
				if below(imp, lib) && !isTest(from) && !slices.Contains(homes, from) {
					t.Errorf("%s imports %s: only %v may", from, imp, homes)
				}
			}
		}
	}
}

// A library that is new in the agent gets a line above, where its home is named.
func TestEveryThirdPartyHasAHome(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/agent") {
		from, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			known := func(lib string) bool { return below(imp, lib) }
			if !strings.Contains(first, ".") || strings.HasPrefix(imp, module) || slices.ContainsFunc(vocabulary, known) {
				continue
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(edge)), known) {
				t.Errorf("%s imports %s, which has no home", from, imp)
			}
		}
	}
}

func TestAllowedRefusesWhatTheDesignForbids(t *testing.T) {
	for _, c := range [][2]string{
		{"mount/storage", "imagepull"},
		{"agent/sandbox", "rpc/wire"},
		{"evidence/kbs", "mount"},
		{"imagepull", "agent/config"},
		{"rpc/wire", "agent/ocispec"},
		{"cmd/agent-ctl", "agent/container"},
		{"rpc", "agent/container/containertest"},
	} {
		if allowed(c[0], c[1]) {
			t.Errorf("%s may import %s", c[0], c[1])
		}
	}
}

// Spans cost more than they are worth to most guests.
func TestAgentLinksNoTracing(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/agent") {
		if below(p.ImportPath, "go.opentelemetry.io") || below(p.ImportPath, "github.com/containerd/otelttrpc") {
			t.Errorf("the agent links %s", p.ImportPath)
		}
	}
}

func TestAgentLinksNothingForTheOtherSide(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/agent") {
		for _, lib := range []string{"github.com/google/go-sev-guest", "github.com/google/go-tdx-guest"} {
			if below(p.ImportPath, lib) && p.ImportPath != "github.com/google/go-sev-guest/client/linuxabi" {
				t.Errorf("the agent links %s", p.ImportPath)
			}
		}
		path, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		if isTest(path) || slices.Contains(neverLinked, path) {
			t.Errorf("the agent links %s", path)
		}
	}
}
